"""The files of a result are found by its name, or it is said why not."""

import subprocess
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from celebflow.errors import CelebflowError
from celebflow.experiments.lookup import find_predictions
from celebflow.experiments.registry import download_model, register


def test_head_without_a_commit_is_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with pytest.raises(CelebflowError, match="not in a git repository.*git init"):
        find_predictions("HEAD", "val")
    subprocess.run(["git", "init", "--quiet"], check=True)
    with pytest.raises(CelebflowError, match="no commit yet.*git commit"):
        find_predictions("HEAD", "val")


class _NoStore(BaseHTTPRequestHandler):
    """Responds to every request as its server says, and counts the requests."""

    server: "_Server"

    def do_GET(self) -> None:
        self.server.count += 1
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"experiments": 3, "registered_models": 3, "model_version": 3}')

    do_POST = do_GET  # noqa: N815 - the names are http.server's

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - http.server's
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    count = 0
    status = 200


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    """Serve something else than MLflow at the address of the store."""
    for name in ("DVC_ROOT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with _Server(("127.0.0.1", 0), _NoStore) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize(
    "use",
    [
        lambda: register(None, "val/final_accuracy", "champion"),
        lambda: download_model("models:/celebflow@champion", Path()),
        lambda: find_predictions("0123", "val"),
    ],
    ids=["register", "predict", "compare"],
)
def test_a_server_that_is_not_mlflow_or_not_well_is_told_at_once(
    store: _Server, status: int, use: Callable[[], object]
) -> None:
    store.status = status
    with pytest.raises(CelebflowError, match=f"http://127.0.0.1:{store.server_port} cannot be used"):
        use()
    assert store.count == 1, "nothing is tried again"
