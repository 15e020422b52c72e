"""Two results → a page that compares them; or the workspace's page with a comparison in it."""

from pathlib import Path

from celebflow import paths
from celebflow.classifier.cards import find_kind
from celebflow.data.photos import load_photos
from celebflow.evaluation.comparison import ResultComparison, compare_predictions
from celebflow.experiments.lookup import find_result, require
from celebflow.experiments.results import WORKSPACE
from celebflow.features.store import load_features
from celebflow.params import keep_informative, list_informative, load_params
from celebflow.report.comparison_page import ComparedResults, load_changes, render_comparison
from celebflow.report.page import ResultPage
from celebflow.tasks import TASKS, load_step
from celebflow.tracking.data_changes import describe_data_difference
from celebflow.tracking.provenance import read_locked_params

_CHOOSING_SPLIT = "val"


def save_page(output: Path, revision: str | None = None, why_folds: int | None = None) -> ResultPage:
    """Write the workspace's page with a comparison, what explains the result, or both; return the page.

    In the comparison, A is `revision`, B the workspace. `why_folds` is in how many parts the photographs are divided to
    explain the result.

    Raises CelebflowError when one of the results is missing, they have no photograph in common, or results of the task
    cannot be explained.
    """
    compared = None if revision is None else _compare(revision, WORKSPACE, _CHOOSING_SPLIT)
    require(paths.CLASSIFIER, paths.PHOTOS, paths.FEATURES, paths.FIGURES, paths.HISTORY)
    paths.require_writable(output)
    params = load_params(paths.PARAMS)
    features = load_features(paths.FEATURES, paths.PHOTOS)
    # What was trained has a task and params of its own, and params.yaml may have changed since.
    publish = load_step(find_kind(paths.CLASSIFIER).task, "publish")
    shown = list_informative(params) | keep_informative(read_locked_params(paths.LOCK))
    extras = {}
    if why_folds is not None:
        from celebflow.experiments.why import explain_result  # imports PyTorch, which takes seconds

        extras["why"] = explain_result(why_folds)
    page: ResultPage = publish(features, shown, None, compared, **extras)
    page.save(output)
    return page


def save_comparison(a: str, b: str, split: str, output: Path) -> ResultComparison:
    """Write a page that compares results A and B, and return the comparison; find_result explains their names.

    Raises CelebflowError when one of the results is missing, or they have no photograph in common.
    """
    compared = _compare(a, b, split)
    with paths.write_whole(output) as part:
        part.write_text(render_comparison(compared), encoding="utf-8")
    return compared.comparison


def _compare(name_a: str, name_b: str, split: str) -> ComparedResults:
    a = find_result(name_a, split)
    b = find_result(name_b, split)
    comparison = compare_predictions(a.predictions, b.predictions)
    by_folder = TASKS[b.predictions[0].task].folders_are_people
    sha256_of = {photo.path: photo.sha256 for photo in load_photos(paths.PHOTOS)} if paths.PHOTOS.exists() else {}
    return ComparedResults(
        name_a=a.name,
        name_b=b.name,
        split=split,
        metrics_a=a.metrics,
        metrics_b=b.metrics,
        params_a=a.params,
        params_b=b.params,
        comparison=comparison,
        fixed=load_changes(comparison.fixed, paths.DATA, sha256_of),
        broken=load_changes(comparison.broken, paths.DATA, sha256_of),
        data_change=describe_data_difference(a.data_md5, b.data_md5, folders_are_people=by_folder),
    )
