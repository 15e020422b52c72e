"""The files of a result are found by its name, or it is said why not."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from celebflow.errors import CelebflowError
from celebflow.experiments import lookup
from celebflow.experiments.lookup import fetch_model, find_predictions
from celebflow.experiments.registry import download_model, register
from celebflow.inference.extractor import find_model_files


def test_head_without_a_commit_is_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with pytest.raises(CelebflowError, match="not in a git repository.*git init"):
        find_predictions("HEAD", "val")
    subprocess.run(["git", "init", "--quiet"], check=True)
    with pytest.raises(CelebflowError, match="no commit yet.*git commit"):
        find_predictions("HEAD", "val")


def test_a_name_without_a_commit_is_told_and_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    (tmp_path / ".dvc").mkdir()
    with pytest.raises(CelebflowError, match="lower-rate is not a git revision or a DVC experiment.*no MLflow store"):
        find_predictions("lower-rate", "val")
    assert not (tmp_path / "mlflow.db").exists()
    with pytest.raises(CelebflowError, match="no commit yet.*git commit"), fetch_model(None, "lower-rate"):
        pass


def test_in_a_fresh_clone_whose_remote_may_have_what_is_missing_it_is_to_be_fetched_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    remote = a\n['remote \"a\"']\n    url = /a\n")
    outputs = ("features", "models/classifier.safetensors", "models/mlflow_run_id.txt", "reports/metrics.json")
    outs = ", ".join(f"{{path: {output}}}" for output in outputs)
    (tmp_path / "dvc.lock").write_text(f"stages: {{train: {{outs: [{outs}]}}}}\n")
    with pytest.raises(CelebflowError, match=r"features is missing\. Run `dvc pull` to fetch it, or `dvc repro` to"):
        lookup.require(Path("features"))
    with pytest.raises(CelebflowError, match=r"classifier.safetensors is missing\. Run `dvc pull` to fetch"):
        find_model_files(Path("models"))
    with pytest.raises(CelebflowError, match="no MLflow store.*Run `dvc pull` to fetch the workspace's result"):
        register(None, "val/final_accuracy", "champion")


@pytest.mark.parametrize(("address", "revision"), [("models:/celebflow@champion", None), (None, "lower-rate")])
def test_errors_about_a_fetched_model_name_it_and_not_the_temporary_folder(
    address: str | None, revision: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celebflow.experiments.registry.download_model", lambda address, folder: folder)
    monkeypatch.setattr(lookup, "copy_outputs", lambda files, revision, folder: files)
    monkeypatch.setattr(lookup, "require_commit", lambda: "0" * 40)
    with pytest.raises(CelebflowError) as caught, fetch_model(address, revision) as folder:
        find_model_files(folder)
    assert str(caught.value).startswith(f"{'--model' if address else '--rev'} is {address or revision}: classifier.")
    with pytest.raises(CelebflowError, match="^something else$"), fetch_model(address, revision):
        raise CelebflowError("something else")


def test_errors_about_a_damaged_file_name_the_result_and_not_the_temporary_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def copy(files: Sequence[Path], revision: str, folder: Path) -> list[Path]:
        (folder / files[0].name).write_text("")
        return [folder / files[0].name]

    monkeypatch.setattr(lookup, "copy_outputs", copy)
    with pytest.raises(CelebflowError, match="^lower-rate: predictions.csv is damaged"):
        find_predictions("lower-rate", "val")


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

    def log_message(self, *arguments: object) -> None:
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
