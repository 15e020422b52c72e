"""`celebflow review` serves its page until Ctrl-C, also after it was killed, and tells what to run."""

import re
import signal
import stat
import subprocess
import threading
import time
import webbrowser
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from celebflow import paths
from celebflow.errors import CelebflowError, Terminated
from celebflow.experiments import review_command
from celebflow.inference import connections
from tests.experiments.attribute_reviewing import make_attribute_project, read_labels
from tests.experiments.reviewing import list_photographs, make_project
from tests.inference.serving import wait_for_address
from tests.repository import Repository


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Return a project with 120 suspects, in the working directory."""
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, 40)
    return Repository(tmp_path)


@contextmanager
def _start(project: Repository, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the command; yield the page's address and the process, and kill what is left of it."""
    process = project.start("python", "-m", "celebflow.cli", "review", "--no-browser", *arguments)
    with wait_for_address(process) as address:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\S+/", address)
        yield address, process


def _post(address: str, path: str, body: Any) -> requests.Response:
    origin = {"Origin": address.rsplit("/", 2)[0]}
    return requests.post(f"{address}{path}", json=body, headers=origin, timeout=60)


def _read_state(address: str) -> dict[str, Any]:
    return dict(requests.get(f"{address}state", timeout=60).json())


@pytest.mark.slow
def test_ctrl_c_ends_it_with_what_was_done_and_another_one_is_refused(project: Repository) -> None:
    with _start(project) as (address, process):
        output = project.run("python", "-m", "celebflow.cli", "review", "--no-browser", status=1)
        assert output.startswith("error: Another `celebflow review` is open")
        assert "Traceback" not in output
        assert _post(address, "decisions", {"row": 0, "action": "delete"}).ok
        assert _post(address, "decisions", {"row": 1, "action": "keep"}).ok
        assert _post(address, "apply", {"rows": [0]}).ok
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        assert "Kept 1, moved 0, deleted 1." in output and "Still open: 118." in output
        assert "  dvc add data\n  git add data.dvc confirmed.csv && git commit" in output
        assert output.endswith("  dvc repro\n")
    with _start(project) as (_, process):
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGTERM
        assert "Still open: 118." in output and "dvc add" not in output, "this was told before"


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_moves_photographs_loses_and_doubles_none(project: Repository) -> None:
    before = list_photographs(project.folder)
    for number in range(4):
        rows = range(30 * number, 30 * number + 30)
        with _start(project) as (address, process):
            likelier = {item["row"]: item["likelier"] for item in _read_state(address)["items"]}
            for row in rows:
                action = "delete" if row % 3 else "move"
                assert _post(address, "decisions", {"row": row, "action": action, "person": likelier[row]}).ok

            def apply(address: str = address, rows: range = rows) -> None:
                with suppress(requests.RequestException):
                    _post(address, "apply", {"rows": [*rows]})

            applying = threading.Thread(target=apply)
            applying.start()
            time.sleep(0.02 * (number + 1))
            process.kill()
            applying.join()
        after = list_photographs(project.folder)
        placeholders = [path for path in after if not (project.folder / path).stat().st_size]
        assert len(placeholders) <= 1
        for path in placeholders:
            del after[path]
        assert Counter(after.values()) == Counter(before.values())
        with _start(project) as (address, _):
            state = _read_state(address)
            items = [item for item in state["items"] if item["row"] in rows]
            assert all(item["action"] for item in items), "each decision is still there"
            _post(address, "apply", {"rows": [*rows]})
            done = _read_state(address)
            assert all(item["place"] for item in done["items"] if item["row"] in rows)
            assert state["left_out"] == 0 and done["commands"][0] == "dvc add data"
        assert Counter(list_photographs(project.folder).values()) == Counter(before.values())


@pytest.mark.slow
def test_labels_of_attributes_are_reviewed_where_that_is_the_task(tmp_path: Path) -> None:
    make_attribute_project(tmp_path)
    project = Repository(tmp_path)
    with _start(project) as (address, process):
        for row, action in enumerate(("flip", "blank", "keep")):
            assert _post(address, "decisions", {"row": row, "action": action}).ok
        assert _post(address, "apply", {"rows": [0, 1]}).ok
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    assert "Kept 1, flipped 1, left blank 1. Still open: 3." in output
    assert "  dvc add data\n  git add data.dvc confirmed_attributes.csv && git commit" in output
    assert read_labels(tmp_path)[0] == ["0", ""]


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_changes_labels_leaves_a_whole_table(tmp_path: Path) -> None:
    count = 30
    make_attribute_project(tmp_path, count)
    project = Repository(tmp_path)
    before = read_labels(tmp_path)
    flipped = [["10"[int(label)] for label in row] for row in before]
    for number in range(3):
        rows = [*range(2 * count)]
        with _start(project) as (address, process):
            for row in rows:
                if not number:
                    assert _post(address, "decisions", {"row": row, "action": "flip"}).ok

            def apply(address: str = address, rows: list[int] = rows) -> None:
                with suppress(requests.RequestException):
                    for row in rows:  # a table is written for each
                        _post(address, "apply", {"rows": [row]})

            applying = threading.Thread(target=apply)
            applying.start()
            time.sleep(0.05 * (number + 1))
            process.kill()
            applying.join()
        with _start(project) as (address, _):
            items = _read_state(address)["items"]
        labels = read_labels(tmp_path)
        assert len(items) == 2 * count and len(labels) == count
        for item in items:
            person, column = item["row"] // 2, item["row"] % 2
            assert item["action"] == "flip"
            assert labels[person][column] == (flipped if item["done"] else before)[person][column]
    assert sorted(file.name for file in (tmp_path / "data").iterdir()) == ["attributes.csv", "faces"]


def test_what_the_command_needs_is_told(project: Repository) -> None:
    with connections.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert f"Cannot listen on 127.0.0.1, port {port}" in project.invoke("review", "--port", str(port), fails=True)
    project.edit("classifier: mlp", "classifier: lda")
    project.edit("pca_components: null", "pca_components: 10")
    project.edit("task: recognition", "task: verification")
    assert "the tasks recognition and attributes, and params.yaml has verification" in project.invoke(
        "review", fails=True
    )
    project.edit("task: verification", "task: recognition")
    paths.SUSPECTS.unlink()
    assert "suspects.csv is missing. Run `celebflow suspects`" in project.invoke("review", fails=True)


def _serve_nothing(monkeypatch: pytest.MonkeyPatch, ends_with: type[BaseException]) -> list[tuple[str, int]]:
    """Let the server end at once, and return a list of what the browser was to open: the content and mode of files."""
    opened = []

    def open_file(address: str) -> bool:
        file = Path(address.removeprefix("file://"))
        opened.append((file.read_text(), stat.S_IMODE(file.stat().st_mode)))
        return True

    def end(*_: object) -> None:
        raise ends_with

    monkeypatch.setattr(webbrowser, "open", open_file)
    monkeypatch.setattr(connections, "run", end)
    return opened


def test_the_browser_gets_the_address_by_a_file_that_others_cannot_read(
    project: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    opened = _serve_nothing(monkeypatch, KeyboardInterrupt)
    paths.REVIEW_PAGE.write_text("of a review that was killed")
    shown: list[str] = []
    review_command.run_review(0, True, shown.append)
    address = re.search(r"http://\S+", shown[0])
    assert address and len(shown) == 2
    [(content, mode)] = opened
    assert f"url={address[0]}" in content and mode == 0o600
    assert not paths.REVIEW_PAGE.exists()


@pytest.mark.parametrize(("wanted", "screen"), [(False, ":0"), (True, "")])
def test_without_a_screen_no_browser_takes_the_terminal(
    project: Repository, monkeypatch: pytest.MonkeyPatch, wanted: bool, screen: str
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", screen)
    opened = _serve_nothing(monkeypatch, Terminated)
    shown: list[str] = []
    with pytest.raises(Terminated):
        review_command.run_review(0, wanted, shown.append)
    assert "Still open: 120." in shown[1]
    assert opened == []


def test_people_who_are_not_to_be_known_are_left_out(project: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    project.edit("unknown_folder: null", "unknown_folder: data/Cy/")
    chosen = []

    def refuse(left_out_person: str | None) -> None:
        chosen.append(left_out_person)
        raise CelebflowError("this is enough")

    monkeypatch.setattr(review_command, "open_review", refuse)
    with pytest.raises(CelebflowError, match="enough"):
        review_command.run_review(0, False, print)
    assert chosen == ["Cy"]
