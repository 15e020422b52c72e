"""Pages compare results of commits, DVC experiments and MLflow runs, or the command says why it cannot."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from celebflow.errors import CelebflowError
from celebflow.evaluation.suspects import load_suspects
from celebflow.experiments import lookup, pages
from tests.experiments.conftest import enter_repository
from tests.repository import Repository

pytestmark = pytest.mark.slow

ADDRESSES: dict[str, Callable[[Repository], str]] = {
    "commit": lambda repository: "HEAD",
    "DVC experiment": lambda repository: "faint",
    "MLflow run": lambda repository: repository.runs()[-1].info.run_id[:12],
}


@pytest.fixture
def repository(two_results: Repository, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Go to the repository with two results, whose files no test changes."""
    enter_repository(two_results, monkeypatch)
    return two_results


def _read_params(html: str) -> dict[str, tuple[str, str]]:
    """Return the params that differ on a page: name → values of A and B."""
    rows = re.findall(r'<tr>\s*<th scope="row">([a-z_.]+)</th>\s*<td>(.*?)</td>\s*<td>(.*?)</td>\s*</tr>', html)
    return {name: (a, b) for name, a, b in rows if name.startswith(("prepare.", "backbone.", "extract.", "train."))}


@pytest.mark.parametrize("kind", ADDRESSES)
def test_a_comparison_is_written_as_a_page_with_the_params_that_differ(
    repository: Repository, kind: str, tmp_path: Path
) -> None:
    address = ADDRESSES[kind](repository)
    file = tmp_path / "pages" / "comparison.html"
    other = "HEAD" if kind == "DVC experiment" else "workspace"
    output = repository.invoke("compare", address, other, "--html", str(file), "--json")
    compared = json.loads(output[output.index("{") :])
    html = file.read_text(encoding="utf-8")
    expected = ("1e-09", "0.001") if kind == "DVC experiment" else ("0.001", "1e-09")
    assert _read_params(html) == {"train.learning_rate": expected}
    assert compared["count"] == 12
    for path in [change["b"]["path"] for change in compared["fixed"] + compared["broken"]]:
        assert path in html
    assert compared["fixed"] + compared["broken"]


@pytest.mark.parametrize("kind", ADDRESSES)
def test_the_page_shows_the_comparison_above_the_workspace_s_own_result(
    repository: Repository, kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    before = (repository.folder / "reports" / "index.html").read_bytes()
    repository.invoke("page", "--against", ADDRESSES[kind](repository), "--output", str(file))
    html = file.read_text(encoding="utf-8")
    # The experiment has the workspace's params.
    expected = {} if kind == "DVC experiment" else {"train.learning_rate": ("0.001", "1e-09")}
    assert _read_params(html) == expected
    assert "<dt>train.learning_rate</dt><dd>1e-09</dd>" in html, "the page is the workspace's"
    assert (repository.folder / "reports" / "index.html").read_bytes() == before


def test_each_result_is_read_once(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    find_result = lookup.find_result

    def find(name: str, split: str) -> lookup.FoundResult:
        names.append(name)
        return find_result(name, split)

    monkeypatch.setattr(pages, "find_result", find)
    monkeypatch.setattr(lookup, "find_predictions", lambda name, split: names.append(name))
    output = repository.invoke("compare", "HEAD", "--html", str(tmp_path / "comparison.html"))
    assert names == ["HEAD", "workspace"]
    assert "A: HEAD, B: workspace, 12 photographs of val in both." in output


@pytest.mark.parametrize("name", ["HEAD", "faint", "workspace"])
def test_a_result_has_metrics_params_and_predictions(repository: Repository, name: str) -> None:
    result = lookup.find_result(name, "test")
    assert result.name == name
    assert set(result.metrics) == {"val", "test"}
    assert result.params["train.learning_rate"] == (0.001 if name == "HEAD" else 1e-9)
    assert len(result.predictions) == 12
    assert result.predictions == lookup.find_predictions(name, "test")


def test_an_mlflow_run_has_the_files_that_its_stage_logged(repository: Repository) -> None:
    first = repository.runs()[-1]
    assert lookup.find_result(first.info.run_id, "val").predictions == lookup.find_predictions("HEAD", "val")
    assert lookup.find_result(first.info.run_id, "val").params == lookup.find_result("HEAD", "val").params


@pytest.mark.parametrize("command", [["page", "--against"], ["compare"]])
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("nowhere", ["nowhere is not a git revision or a DVC experiment", "There is no run nowhere"]),
        ("HEAD~1", ["HEAD~1 has no reports/", "dvc repro"]),
    ],
)
def test_a_result_that_does_not_exist_is_reported(
    repository: Repository, command: list[str], name: str, parts: list[str]
) -> None:
    output = repository.invoke(*command, name, fails=True)
    for part in parts:
        assert part in output


@pytest.mark.parametrize("command", [["page", "--against"], ["compare", "--html", "comparison.html"]])
def test_results_of_other_photographs_are_not_compared(clone: Repository, command: list[str]) -> None:
    file = clone.folder / "reports" / "val" / "predictions.csv"
    header, *rows = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([header, *(f"other {row}" for row in rows)]) + "\n", encoding="utf-8")
    assert "no photograph of this split in common" in clone.invoke(*command, "HEAD", fails=True)
    assert not (clone.folder / "comparison.html").exists()


@pytest.mark.parametrize("command", [["page", "--against"], ["compare", "--html", "comparison.html"]])
def test_predictions_of_another_version_are_refused_with_the_result_and_the_column(
    clone: Repository, command: list[str]
) -> None:
    file = clone.folder / "reports" / "val" / "predictions.csv"
    file.write_text(file.read_text(encoding="utf-8").replace("confidence", "probability", 1), encoding="utf-8")
    assert re.search(r"(?s)error: workspace: .*confidence", clone.invoke(*command, "HEAD", fails=True))


@pytest.mark.parametrize(
    "missing", ["reports/all_metrics.json", "reports/history.csv", "models/classifier.safetensors"]
)
def test_a_workspace_without_a_whole_result_has_no_page(clone: Repository, missing: str) -> None:
    (clone.folder / missing).unlink()
    output = clone.invoke("page", "--against", "HEAD", fails=True)
    assert f"{missing} is missing" in output and "dvc repro" in output


def test_pages_show_the_params_that_made_the_results_and_not_those_that_were_edited_since(
    clone: Repository, tmp_path: Path
) -> None:
    clone.edit("dropout: 0.5", "dropout: 0.125")
    pages.save_comparison("HEAD", "workspace", "val", tmp_path / "comparison.html")
    pages.save_page(tmp_path / "page.html", "HEAD")
    for file in tmp_path.glob("*.html"):
        html = file.read_text(encoding="utf-8")
        assert _read_params(html).keys() == {"train.learning_rate"}
        assert "0.125" not in html


def test_a_workspace_without_its_split_is_told_with_the_remedy(clone: Repository, tmp_path: Path) -> None:
    (clone.folder / "splits" / "photos.csv").unlink()
    with pytest.raises(CelebflowError, match="splits/photos.csv is missing. Run `dvc repro`"):
        pages.save_page(tmp_path / "page.html", "HEAD")


def test_the_page_explains_the_result_on_request_and_says_what_to_do(clone: Repository) -> None:
    before = clone.run("dvc", "status", "--json"), clone.run("git", "status", "--porcelain")
    output = clone.invoke("page", "--why", "--folds", "3")
    assert "reports/why.html" in output
    html = (clone.folder / "reports" / "why.html").read_text(encoding="utf-8")
    people = sorted(folder.name for folder in (clone.folder / "data").iterdir())
    sheets = re.search(r'(?s)<table class="sheets">(.*?)</table>', html)
    assert sheets and all(person.replace("_", " ") in sheets[1] for person in people)
    suspects = load_suspects(clone.folder / "reports" / "suspects.csv")
    assert suspects and all(each.path in html for each in suspects)
    assert "Val is small" in output and "celebflow crossvalidate" in output and "Val is small" in html, "advice"
    assert "judge labels by a better recipe" in html and "celebflow review" not in output, "it is often wrong"
    assert (clone.run("dvc", "status", "--json"), clone.run("git", "status", "--porcelain")) == before
    assert 'id="comparison"' not in html
    clone.invoke("page", "--why", "--folds", "3", "--against", "HEAD", "--output", "both.html")
    html = (clone.folder / "both.html").read_text(encoding="utf-8")
    assert 'id="comparison"' in html and 'id="why"' in html


def test_a_page_without_anything_to_add_is_refused(clone: Repository) -> None:
    assert "--why, --against" in clone.run("celebflow", "page", status=2)
    clone.edit("classifier: mlp", "classifier: lda")
    clone.edit("pca_components: null", "pca_components: 10")
    clone.edit("task: recognition", "task: verification")
    assert "the task recognition" in clone.invoke("page", "--why", fails=True)
    assert not (clone.folder / "reports" / "why.html").exists()


def test_the_page_says_how_the_photographs_differ(clone: Repository, tmp_path: Path) -> None:
    next(file for file in sorted((clone.folder / "data").rglob("*")) if file.is_file()).unlink()
    clone.run("dvc", "add", "data")
    clone.repro()
    clone.invoke("page", "--against", "HEAD", "--output", str(tmp_path / "page.html"))
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.count("data changed (-1 photograph)") == 2, "at the top, and in the comparison"
