"""Where reports cannot be written, commands say so before they train."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from celebflow.experiments import (
    attribute_learning,
    attribute_suspects,
    crossvalidation,
    learning,
    pages,
    suspect_labels,
    why,
)

PAGE = Path("page.html")
COMMANDS: dict[str, tuple[object, Callable[[], object]]] = {
    "suspects": (suspect_labels, lambda: suspect_labels.check_labels(5, PAGE)),
    "suspects of attributes": (attribute_suspects, lambda: attribute_suspects.check_attributes(5, PAGE)),
    "learning-curve": (learning, lambda: learning.measure_learning_curve(1, PAGE)),
    "learning-curve of attributes": (
        attribute_learning,
        lambda: attribute_learning.measure_attribute_learning_curve(1, PAGE),
    ),
    "crossvalidate": (crossvalidation, lambda: crossvalidation.cross_validate(5, 1, None)),
    "page --why": (why, lambda: why.explain_result(5)),
    "page": (pages, lambda: pages.save_page(Path("reports/why.html"), why_folds=5)),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_reports_that_cannot_be_written_are_told_before_a_training(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").write_text("a file, so that it cannot be a folder, even for the superuser")

    def train(*arguments: object, **options: object) -> None:
        raise AssertionError("it trained, or began to")

    module, run = COMMANDS[command]
    for name in ("load_for_recognition", "load_params", "load_features"):
        loaded = (SimpleNamespace(), SimpleNamespace()) if name == "load_for_recognition" else None
        monkeypatch.setattr(module, name, lambda *_, loaded=loaded: loaded, raising=False)
    for name in ("require", "require_commit", "require_trust", "require_identity", "_require_reproduced"):
        monkeypatch.setattr(module, name, lambda *_: None, raising=False)
    monkeypatch.setattr(module, "_choose_name", lambda name: name, raising=False)
    for name in ("open_fits", "judge_labels", "load_attributes", "choose_fractions", "load_report", "find_kind"):
        monkeypatch.setattr(module, name, train, raising=False)
    with pytest.raises((FileExistsError, NotADirectoryError)) as caught:
        run()
    assert str(caught.value.filename).startswith("reports")
