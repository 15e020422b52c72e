"""The command line `celebflow`; only the commands that need torch or mlflow import them."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import click

from celebflow import errors, paths

sys.excepthook = errors.report_uncaught  # until run_to_exit begins
_Result = TypeVar("_Result")
_EMPTY = "it is empty"


class _Name(click.types.StringParamType):
    """A text that is not empty, as a variable that a shell does not know is: that would choose another model."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(value, param, ctx) or self.fail(_EMPTY, param, ctx)


class _Path(click.Path):
    """The same for paths: pathlib takes an empty one for the working directory."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        return super().convert(value, param, ctx) if os.fspath(value) else self.fail(_EMPTY, param, ctx)


_NAME = _Name()
_FILE = _Path(path_type=Path, dir_okay=False)
_FOLDER = _Path(path_type=Path, file_okay=False)


class _Group(click.Group):
    """A group of commands that ends on Ctrl-C, SIGTERM and CelebflowError as the stages do."""

    def __call__(self, *args: object, **kwargs: object) -> None:
        errors.run_to_exit(self.main)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click would end with the status of an error
            raise errors.Interrupted from None


class _ProjectCommand(click.Command):
    """A command that needs the working directory to be that of a project."""

    def invoke(self, ctx: click.Context) -> object:
        paths.require_project()
        return super().invoke(ctx)


class _ProjectGroup(_ProjectCommand, click.Group):
    """A group of such commands."""


def _echo(text: str, *, err: bool = False) -> None:
    """Print a text in which names of people and files do nothing to the terminal."""
    click.echo(errors.escape_controls(text), err=err)


def _echo_line(text: str, *, err: bool = False) -> None:
    """Do so on one line, whatever characters the names of files have."""
    click.echo(errors.escape_controls(text, keep=""), err=err)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="celebflow")
def main() -> None:
    """Recognize the people in photographs with a frozen VGG19.

    Run the pipeline itself with DVC: `dvc repro` (see README.md).
    """


@main.command()
@click.argument("folder", type=_FOLDER)
def sample(folder: Path) -> None:
    """Draw photographs of 31 invented people into FOLDER.

    A table, attributes.csv, says what they show. They are the same files, byte for byte, each time. Other files in
    FOLDER are an error, so that invented people never mix with your own photographs.

    \b
    Example:
      celebflow sample data     # then: dvc exp run -S backbone.weights=untrained
    """
    from tqdm import tqdm

    from celebflow.data import invented_people
    from celebflow.data.given_tables import ATTRIBUTES_TABLE

    drawn = invented_people.draw_sample_data(folder)
    for _ in tqdm(drawn, "drawing", invented_people.PHOTOGRAPH_COUNT, unit="photograph", disable=None):
        pass
    _echo(
        f"{invented_people.PHOTOGRAPH_COUNT} photographs of {len(invented_people.PEOPLE)} invented people are in "
        f"{folder}. {ATTRIBUTES_TABLE} there says what they show."
    )


@main.group(cls=_ProjectGroup, invoke_without_command=True)
@click.pass_context
def cache(context: click.Context) -> None:
    """Show what .celebflow keeps, and how large it is.

    \b
    Examples:
      celebflow cache           # show its size
      celebflow cache prune     # keep only what the photographs here need
    """
    if context.invoked_subcommand is None:
        _show_cache()


@cache.command()
@click.option("--all", "everything", is_flag=True, help="Also remove the features of the photographs here.")
@click.option("--yes", is_flag=True, help="Do not ask, where other projects share the cache.")
def prune(everything: bool, yes: bool) -> None:
    """Keep only what the photographs here need.

    This removes features of photographs that are no longer here, features that another backbone, crop, view or runtime
    made, the checkpoints of interrupted trainings, what was fitted to features, and what prepare knows of photographs
    that are no longer here. What is needed later is computed again.

    What other projects need in a cache that they share (CELEBFLOW_CACHE) is removed, too, so the command asks first.

    \b
    Examples:
      celebflow cache prune          # after you removed photographs or changed the backbone
      celebflow cache prune --all    # to free all the disk space
    """
    from celebflow.classifier import checkpoints, fits
    from celebflow.data import checked
    from celebflow.data.photos import load_photos
    from celebflow.features.cache import empty_cache, is_shared, prune_cache
    from celebflow.features.origin import FeatureOrigin, origin_file
    from celebflow.tracking.provenance import advise_to_make

    folder = paths.feature_cache()
    origin = origin_file(paths.FEATURES)
    if not everything and not (origin.exists() and paths.PHOTOS.exists()):
        raise errors.CelebflowError(
            f"{origin} or {paths.PHOTOS} is missing. They say what the photographs here need. "
            f"{advise_to_make(origin, paths.PHOTOS)}, or remove everything with --all."
        )
    if is_shared(folder) and not yes:
        _ask(f"Other projects may share the cache {folder}. What they need is removed, and computed again later.")
    photos = [] if everything else load_photos(paths.PHOTOS)
    if everything:
        empty_cache(folder)
    else:
        prune_cache(folder, photos, FeatureOrigin.load(origin))
    checked.forget_others(paths.checked_photographs(), [photo.sha256 for photo in photos])
    checkpoints.remove_abandoned()
    fits.remove_fits(paths.fits())
    _show_cache()


def _ask(warning: str) -> None:
    """Ask whether to go on; end the command if not, and raise CelebflowError where nobody can answer."""
    if not sys.stdin.isatty():
        raise errors.CelebflowError(f"{warning} If you want that, add --yes.")
    try:
        click.confirm(f"{errors.escape_controls(warning)} Go on?", abort=True)
    except click.Abort:
        raise errors.Interrupted from None


@main.group(cls=_ProjectGroup, invoke_without_command=True)
@click.option("--commits", default=10, help="The number of last commits with a result to list; -1 for all.")
@click.pass_context
def runs(context: click.Context, commits: int) -> None:
    """List results of commits and experiments.

    Each row shows the metrics, the params that made them and that differ, and the MLflow run. Params of an experiment
    are compared with those of the commit that it started from, all others with those of the last commit. Experiments
    that are queued, running or failed have no metrics.

    \b
    Examples:
      celebflow runs                 # the workspace, the last commits with a result, and all experiments
      celebflow runs --commits -1    # all commits with a result
      celebflow runs sync            # log the runs that wait for MLflow's store
    """
    if context.invoked_subcommand is None:
        from celebflow.experiments.results import find_pending_changes, format_results, list_results

        results = list_results(commits)
        _echo(format_results(results))
        if results[0].metrics and (pending := find_pending_changes()):
            _echo(
                f"The workspace's result was made before params.yaml changed ({', '.join(pending)}): run `dvc repro`.",
                err=True,
            )
        if not any(result.metrics for result in results):
            from celebflow.tracking.provenance import find_pull

            pull = find_pull(paths.METRICS)
            _echo(
                f"No result is here. Run `{pull}`, with --all-commits for those of other commits, or `dvc repro`."
                if pull
                else "No result is here. Run `dvc repro`, or `dvc pull --all-commits` if another machine has them."
            )


@runs.command()
@click.option("--here", is_flag=True, help="Also log runs that were meant for another store.")
def sync(here: bool) -> None:
    """Log the runs that wait in this repository to MLflow's store.

    A run waits when the store cannot be reached and tracking.required is false.

    \b
    Examples:
      celebflow runs sync
      MLFLOW_TRACKING_URI=http://127.0.0.1:5000 celebflow runs sync
      celebflow runs sync --here     # the server is gone for good
    """
    from celebflow.tracking.syncing import sync_runs

    outcomes = []
    for outcome in sync_runs(here):
        _echo(f"{outcome.name}: {outcome.run_id or outcome.reason}")
        outcomes.append(outcome)
    waiting_count = sum(not outcome.run_id for outcome in outcomes)
    _echo(f"{len(outcomes) - waiting_count} runs synced." if outcomes else "No runs wait.")
    if waiting_count:
        raise errors.CelebflowError(f"{waiting_count} runs still wait.")


@main.command(cls=_ProjectCommand)
@click.argument("run", type=_NAME, required=False)
@click.option("--metric", default="val/final_accuracy", help="The metric that chooses a run without RUN.")
@click.option("--alias", default="champion", help="The alias of the version.")
def register(run: str | None, metric: str, alias: str) -> None:
    """Register a run's model in MLflow as a new version.

    RUN is the id of an MLflow run, the beginning of the id, or the name of a DVC experiment. Without RUN, a metric of
    validation chooses the best run on the photographs and split of dvc.lock. Models of the task verification become
    versions of celebflow-verification, those of the task attributes of celebflow-attributes.

    \b
    Examples:
      celebflow register
      celebflow register --metric val/final_macro_auc
      celebflow register faster-rate --alias challenger
      mlflow models serve -m models:/celebflow@champion --env-manager local
    """
    from celebflow.experiments import registry

    chosen, version = registry.register(run, metric, alias)
    details = chosen.info.run_id
    if metric in chosen.data.metrics:
        details += f", {metric} {chosen.data.metrics[metric]:.4f}"
    _echo(f"{chosen.info.run_name} ({details}) is version {version.version} of {version.name}, alias {alias}.")
    _echo(f"Serve it: mlflow models serve -m models:/{version.name}@{alias} --env-manager local")


@main.command(cls=_ProjectCommand)
@click.argument("a", type=_NAME)
@click.argument("b", type=_NAME, default="workspace")
@click.option(
    "--split",
    type=click.Choice(["val", "test", paths.CROSS_VALIDATION.name]),
    default="val",
    help="The split to compare on.",
)
@click.option("--limit", default=20, help="The maximum number of photographs in each list; -1 for all.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole comparison as JSON.")
@click.option("--html", type=_FILE, help="Also write the comparison to this file as a page.")
def compare(a: str, b: str, split: str, limit: int, as_json: bool, html: Path | None) -> None:
    """Compare result B with result A.

    The comparison says whether B is better, for which people, and on which photographs. A and B are each a git
    revision, a DVC experiment, an MLflow run (its id or the beginning), or workspace, the default of B. They are
    compared on the photographs of the split that both results have.

    The p value comes from McNemar's exact test: it is the probability that the photographs that only one result gets
    right would divide as unevenly, if neither result were better. The interval comes from a paired bootstrap of groups
    of near-duplicates. Choose models by val, and keep test for the report.

    With --split crossvalidation, the results of `celebflow crossvalidate` are compared. Their interval and a further p
    value come from the corrected resampled t test of the folds' accuracies.

    \b
    Examples:
      celebflow compare HEAD                     # the workspace against the last commit
      celebflow compare main lower-rate          # an experiment against a branch
      celebflow compare HEAD~1 HEAD --split test
      celebflow compare HEAD --html comparison.html
    """
    from celebflow.evaluation.comparison import compare_predictions
    from celebflow.experiments.comparison_text import format_comparison
    from celebflow.experiments.lookup import find_predictions

    of_folds = None
    if split == paths.CROSS_VALIDATION.name:
        from celebflow.evaluation.cross_validation import compare_folds
        from celebflow.experiments.lookup import find_folds

        if html is not None:
            raise click.UsageError("--html shows val or test. Leave it out, or choose another --split.")
        of_folds = compare_folds(find_folds(a), find_folds(b))
    if html is None:
        compared = compare_predictions(find_predictions(a, split), find_predictions(b, split))
    else:
        from celebflow.experiments.pages import save_comparison

        compared = save_comparison(a, b, split, html)
        _echo(f"The comparison is in {html}.", err=True)
    if as_json:
        content = {"a": a, "b": b, "split": split, **asdict(compared)}
        if of_folds is not None:
            content["folds"] = asdict(of_folds)
        _echo(json.dumps(content, indent=2, allow_nan=False))
    else:
        _echo(format_comparison(a, b, split, compared, limit, of_folds))


@main.command(cls=_ProjectCommand)
@click.option("--against", "revision", type=_NAME, help="The result to compare with, as in celebflow compare.")
@click.option("--why", is_flag=True, help="Add what explains the result, which takes a minute or more.")
@click.option(
    "--folds", type=click.IntRange(min=2), default=5, help="How many parts --why divides the photographs into."
)
@click.option(
    "--output", type=_FILE, help="The file to write: reports/comparison.html, or with --why reports/why.html."
)
def page(revision: str | None, why: bool, folds: int, output: Path | None) -> None:
    """Write the workspace's page with what explains it.

    The page is reports/index.html plus a comparison, an explanation, or both.

    With --against, it shows what differs from another result: params, metrics, and the photographs of val that only one
    of the two results gets right.

    With --why, it shows suspect labels, what more photographs would bring, whether the evidence lies in faces or around
    them, which photographs are hard, and for each person whom they are taken for and why. All photographs are
    predicted by classifiers that were trained without them. At the end, it says what to do next.

    \b
    Examples:
      celebflow page --why
      celebflow page --against HEAD
      celebflow page --against less-dropout --output ~/less-dropout.html
    """
    from celebflow.experiments.pages import save_page

    if revision is None and not why:
        raise click.UsageError("The page is reports/index.html. Add --why, --against RESULT, or both.")
    output = output or (paths.WHY_PAGE if why else paths.COMPARISON_PAGE)
    with redirect_stdout(sys.stderr):  # what trainings say
        written = save_page(output, revision, folds if why else None)
    if why:
        _echo("\n".join(str(each) for each in written.advice) or "There is nothing to advise.")
    _echo(f"The page is in {output}.")


@main.command(cls=_ProjectCommand)
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--rev", "revision", type=_NAME, help="The model of a git revision or a DVC experiment.")
@click.option("--sheet", type=_FILE, help="Also draw who was taken for whom, into this PNG file.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
def openset(folder: Path | None, revision: str | None, sheet: Path | None, as_json: bool) -> None:
    """Measure how many unknown people would get a name.

    FOLDER holds photographs of people whom the classifier was not trained on, best in a folder per person; without it,
    that is prepare.unknown_folder, or data_unknown where params.yaml names none. The command prints how many of them
    reach the threshold, and how well they are told apart from the known people of the test split. The threshold was
    fitted for train.false_acceptance_rate, to people of train who were each left out of a model. The interval resamples
    people.

    \b
    Examples:
      celebflow openset                    # the photographs in prepare.unknown_folder, or else data_unknown
      celebflow openset ~/other-people --sheet taken.png
      celebflow openset --rev main --json
    """
    from celebflow.data.photos import UNKNOWN
    from celebflow.experiments.lookup import find_person_predictions, find_photos
    from celebflow.experiments.results import WORKSPACE
    from celebflow.inference import open_set
    from celebflow.inference.predictor import Predictor
    from celebflow.params import load_params

    if folder is None:
        folder = open_set.find_folder(load_params(paths.PARAMS).prepare.unknown_folder)
    with _open_folder(None, revision) as folder_of_model:
        predictor = Predictor.load(folder_of_model)
        known = find_person_predictions(revision or WORKSPACE, "test")
        photos = find_photos(revision or WORKSPACE)
        known_sha256s = {photo.sha256 for photo in photos if photo.split != UNKNOWN}
        if sheet is not None:
            paths.require_writable(sheet)
        report = open_set.measure_open_set(folder, predictor, known, known_sha256s)
    for line in report.unreadable:
        _echo_line(f"skipped: {line}", err=True)
    for kind, listed in (
        ("The classifier was trained on these people, who are not unknown", report.known_names),
        ("These are photographs of people whom the classifier knows, and count all the same", report.known_files),
        ("No face was found in these photographs, which count all the same", report.faceless),
    ):
        if listed:
            _echo_line(f"{kind}: {errors.list_some(listed)}.", err=True)
    if sheet is not None and report.taken:
        open_set.save_taken(report, folder, predictor.card.backbone.warning(), sheet)
    elif sheet is not None:
        _echo(f"{sheet} is not drawn, because nobody was taken for anybody.", err=True)
    if as_json:
        _echo(json.dumps(asdict(report), indent=2, ensure_ascii=False, allow_nan=False))
        return
    interval = "one person, so no interval"
    if report.people_count > 1:
        interval = f"95% interval {report.interval.low:.1%} to {report.interval.high:.1%}"
    _echo(
        f"{report.accepted} of {report.count} photographs of unknown people ({report.false_acceptance_rate:.1%}, "
        f"{interval}) would be given a name, where "
        f"{report.expected_rate:.1%} is expected. Coverage of known people's test photographs: "
        f"{report.known_coverage:.1%}."
    )
    _echo(f"AUC of known against unknown people: {report.auc:.4f}")
    if report.taken:
        counts = Counter(each.name for each in report.taken).most_common(5)
        _echo("Taken for: " + ", ".join(f"{name} ({count})" for name, count in counts))


@main.command(cls=_ProjectCommand)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--sample", type=click.IntRange(10, 2000), default=500, help="How many new photographs to compare.")
@click.option("--limit", default=10, help="The maximum number of photographs in the list; -1 for all.")
@click.option("--sheet", type=_FILE, help="Also draw the photographs that differ most into this PNG file.")
@click.option("--json", "format_name", flag_value="json", help="Print the whole report as JSON.")
@click.option("--csv", "format_name", flag_value="csv", help="Print a CSV row for each new photograph.")
def drift(folder: Path, sample: int, limit: int, sheet: Path | None, format_name: str | None) -> None:
    """Tell whether new photographs look like those of train.

    FOLDER holds the new photographs, at any depth; of more than --sample, some are drawn. A classifier tries to tell
    them from those of train, each without having seen it. An AUC of 0.5 means that nobody could, 1 that it always can;
    where only some differ, more than 5% look newer than 95% of train. The p value is the probability of as much by
    chance. The photographs with the highest scores differ most.

    Who is shown counts as a difference, too, unless all photographs are in folders of people of train, as in data/:
    then each is compared with those of its person alone.

    The command also prints how many of them the classifier would call unknown, beside the same of the test split, and
    in how many no face was found. The exit status is 0 whether there is a difference or not.

    \b
    Examples:
      celebflow drift ~/new-photographs
      celebflow drift ~/new-photographs --sheet drift.png
      celebflow drift ~/new-photographs --csv > drift.csv
    """
    from celebflow.experiments.drift import check_drift, format_csv, format_drift, save_sheet

    if sheet is not None:
        paths.require_writable(sheet)
    check = check_drift(folder, sample)
    for line in check.report.unreadable:
        _echo_line(f"skipped: {line}", err=True)
    formats = {
        "json": lambda reports: json.dumps(asdict(reports[0]), indent=2, ensure_ascii=False, allow_nan=False),
        "csv": lambda reports: format_csv(reports[0]),
        None: lambda reports: format_drift(reports[0], limit),
    }
    _print_results([check.report], formats, format_name)
    if sheet is not None:
        save_sheet(check, sheet)


_MODEL_HELP = "A folder with a model, or a model's address in MLflow: models:/celebflow@champion."
_choose_revision = click.option(
    "--rev", "revision", type=_NAME, help="The model of a git revision or a DVC experiment."
)


def _choose_model(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that `_open_folder` takes."""
    return click.option("--model", type=_NAME, help=_MODEL_HELP)(_choose_revision(command))


@main.command()
@click.argument("photographs", nargs=-1, required=True, metavar="PHOTO|FOLDER|-...")
@click.option(
    "--model", "models", type=_NAME, multiple=True, help=f"{_MODEL_HELP} Give two, of different tasks, to use both."
)
@_choose_revision
@click.option(
    "--top", type=click.IntRange(1), help="The number of names per face, 3 without it, or of attributes, all."
)
@click.option("--whole", is_flag=True, help="Predict a photograph without a face as a whole.")
@click.option("--json", "format_name", flag_value="json", help="Print a JSON array with an object for each face.")
@click.option("--csv", "format_name", flag_value="csv", help="Print a CSV row for each name of each face.")
def predict(
    photographs: tuple[str, ...],
    models: tuple[str, ...],
    revision: str | None,
    top: int | None,
    format_name: str | None,
    whole: bool,
) -> None:
    """Predict who is in photographs, or faces' attributes.

    Photographs are files, the files in FOLDERs at any depth, or standard input (-).

    The model is the workspace's, or the one that --model or --rev chooses. A model of people predicts who a face is;
    one that matches none of them well enough is unknown. A model of attributes says which of them a face has, and
    which answers are uncertain. Two models, one of each task, are used together: features that both need are computed
    once. JSON then has an object for each photograph, and CSV, as for attributes alone, a row for each face with all
    attributes.

    A model that detects faces predicts each face in a photograph, with its box in pixels; where it finds none, nothing
    is guessed. Other models predict the photograph as a whole. Files that are not readable photographs are reported on
    standard error, and the exit status is 1; the others are predicted all the same.

    \b
    Examples:
      celebflow predict holiday.jpg
      celebflow predict ~/photos --csv > people.csv
      celebflow predict --model models:/celebflow@champion holiday.jpg
      celebflow predict --rev main --json - < holiday.jpg
      celebflow predict --model models --model ~/attributes holiday.jpg
    """
    from tqdm import tqdm

    from celebflow.inference import answers, files
    from celebflow.inference.loading import load_predictors

    with ExitStack() as folders:
        opened = [folders.enter_context(_open_folder(model, revision)) for model in models or (None,)]
        predictors = load_predictors(opened)
        listed = files.list_photographs(photographs)
        refused = []

        def refuse(name: str, reason: str) -> None:
            refused.append(name)
            _show_refusal(name, reason)

        # A row of CSV has all attributes.
        counts = {"recognition": top or 3, "attributes": None if format_name == "csv" else top}
        # The bar of a single photograph would vanish before anyone sees it.
        progress = tqdm(listed, "predicting", unit="photograph", disable=True if len(listed) == 1 else None)
        read = partial(_read_photograph, arguments=photographs)
        max_answers = [counts[predictor.task] for predictor in predictors]
        predictions = list(files.predict_photographs(progress, read, predictors, max_answers, refuse, whole=whole))
    formats = {"json": answers.format_json, "csv": answers.format_csv, None: answers.format_table}
    questions = answers.Questions.of(predictors)
    _print_results(
        predictions, {name: partial(write, questions=questions) for name, write in formats.items()}, format_name
    )
    if refused:
        raise errors.CelebflowError(f"{len(refused)} of {len(listed)} files are not readable photographs.")


@main.command()
@click.argument("name", type=_NAME, required=False)
@click.argument("photographs", nargs=-1, metavar="PHOTO...")
@click.option("--model", type=_FOLDER, help="A folder with a model, instead of the workspace's.")
@click.option("--remove", is_flag=True, help="Remove the person NAME.")
@click.option("--whole", is_flag=True, help="Take a photograph without a face as a whole.")
def enroll(name: str | None, photographs: tuple[str, ...], model: Path | None, remove: bool, whole: bool) -> None:
    """Add a person to the model from a few photographs.

    This takes no training. Each PHOTO shows NAME as its subject; five photographs do better than one. From then
    on, `celebflow predict` and `celebflow serve` also predict NAME, and say that the person is enrolled. Without NAME,
    the enrolled people are listed.

    The classifier itself stays as it is. Enrolled people are compared by its gallery, and saved beside it, in
    models/enrolled.safetensors, which neither git nor DVC tracks. A classifier that is trained again needs them
    enrolled again.

    \b
    Examples:
      celebflow enroll "Ada Brown" ada1.jpg ada2.jpg ada3.jpg
      celebflow enroll                          # list enrolled people
      celebflow enroll --remove "Ada Brown"
    """
    from celebflow.inference import enrolling
    from celebflow.inference.predictor import Predictor

    if name is None and remove:
        raise click.UsageError("--remove needs the NAME of an enrolled person.")
    if name is not None and bool(photographs) == remove:
        raise click.UsageError("Give photographs of NAME, or --remove.")
    with _open_folder(None if model is None else str(model), None) as folder:
        predictor = Predictor.load(folder)
    if name is None:
        people = enrolling.list_enrolled(predictor)
        for person in people:
            _echo(f"{person.name}: {person.count_photographs()}")
        if not people:
            _echo("Nobody is enrolled.")
    elif remove:
        enrolling.remove_enrolled(name, predictor)
        _echo(f"{name} is no longer enrolled.")
    else:
        read = partial(_read_photograph, arguments=photographs)
        person = enrolling.enroll(name, photographs, read, predictor, partial(_echo_line, err=True), whole=whole)
        _echo(f"{person.name} is enrolled from {person.count_photographs()}.")


@main.command()
@click.argument("photographs", nargs=-1, metavar="A B...")
@_choose_model
@click.option(
    "--pairs",
    "table",
    type=_FILE,
    help="Also the pairs of a CSV file or standard input (-), with the columns first and second.",
)
@click.option("--whole", is_flag=True, help="Compare a photograph without a face as a whole.")
@click.option("--json", "format_name", flag_value="json", help="Print a JSON array with an object for each pair.")
@click.option("--csv", "format_name", flag_value="csv", help="Print a CSV row for each pair.")
def verify(
    photographs: tuple[str, ...],
    model: str | None,
    revision: str | None,
    table: Path | None,
    format_name: str | None,
    whole: bool,
) -> None:
    """Tell whether photographs show the same person.

    Photographs are files or standard input (-), compared two by two: A with B, and so on. Those of --pairs are relative
    to the folder of that table, or to the working directory where the table comes through a pipe or standard input.
    The model was trained with the task verification; it is the workspace's, or the one that --model or --rev chooses.
    It knows none of the people.

    The answer is same when that is at least as likely as not, taking both for equally likely before. The probability
    is that of the same person. Where a photograph shows several people, its subject is compared, which is said; where
    no face is found, there is no answer. Files that are not readable photographs are reported on standard error, and
    the exit status is 1; the other pairs are compared all the same.

    \b
    Examples:
      celebflow verify passport.jpg selfie.jpg
      celebflow verify --pairs pairs.csv --csv > answers.csv
      celebflow verify --rev main --json a.jpg b.jpg
    """
    from tqdm import tqdm

    from celebflow.inference import verifying
    from celebflow.inference.pair_verifier import PairVerifier

    pairs = verifying.list_pairs(photographs, table)
    refused = []
    crowded: list[str] = []

    def refuse(name: str, reason: str) -> None:
        refused.append(name)
        _show_refusal(name, reason)

    with _open_folder(model, revision) as folder:
        verifier = PairVerifier.load(folder)
        progress = tqdm(pairs, "comparing", unit="pair", disable=True if len(pairs) == 1 else None)
        read = partial(_read_photograph, arguments=photographs)
        answers = list(verifying.verify_pairs(progress, read, verifier, refuse, whole=whole, note_faces=crowded.append))
    formats = {"json": verifying.format_json, "csv": verifying.format_csv, None: verifying.format_table}
    _print_results(answers, formats, format_name)
    if answers and format_name is None:
        calibration = verifier.card.calibration
        _echo(
            f"On val, {calibration.false_match_rate:.1%} of pairs of two people were called same, and "
            f"{calibration.false_non_match_rate:.1%} of pairs of the same person different."
        )
    if crowded:
        _echo_line(verifying.describe_crowded(crowded), err=True)
    if refused:
        raise errors.CelebflowError(f"{len(refused)} files are not readable photographs.")


def _print_results(
    results: Sequence[_Result],
    formats: Mapping[str | None, Callable[[Sequence[_Result]], str]],
    format_name: str | None,
) -> None:
    """Print results in the format of this name; the default one prints nothing when there is no result."""
    if format_name == "csv" and not sys.stdout.isatty():
        click.echo(formats[format_name](results), color=True)  # a program gets each name as it is
    elif results or format_name:
        _echo(formats[format_name](results))


def _read_photograph(name: str, arguments: Sequence[str]) -> bytes:
    """Read a file; one that stands in the command line itself may be a pipe or, as -, standard input.

    An empty name would otherwise be that of the working directory.
    """
    from celebflow.data.files import STANDARD_INPUT, read_file, read_stream
    from celebflow.data.formats import PhotographError

    if not name:
        raise PhotographError("is not a file")
    if name != STANDARD_INPUT or name not in arguments:
        return read_file(Path(name), pipes=name in arguments)
    content = read_stream(sys.stdin.buffer)
    if not content:
        raise PhotographError("cannot be read: standard input is empty or closed")
    return content


def _show_refusal(name: str, reason: str) -> None:
    """Say why a file is not a readable photograph, next to a progress bar."""
    from tqdm import tqdm

    tqdm.write(errors.escape_controls(f"{name or repr(name)}: {reason}", keep=""), file=sys.stderr)


@contextmanager
def _open_folder(model: str | None, revision: str | None) -> Iterator[Path]:
    """Find the folder of the model that the options choose; MLflow and DVC are imported only where they are needed."""
    if model is not None and revision is not None:
        raise click.UsageError("--model and --rev each choose a model: give one of them.")
    if model is None:
        paths.require_project()
    if revision is None and not (model or "").startswith(("models:/", "runs:/")):
        yield paths.CLASSIFIER.parent if model is None else Path(model)
        return
    from celebflow.experiments.lookup import fetch_model

    with fetch_model(model, revision) as folder:
        yield folder


@main.command()
@_choose_model
@click.option("--host", default="127.0.0.1", help="The address to listen on.")
@click.option("--port", default=8000, type=click.IntRange(0, 65535), help="The port; 0 takes a free one.")
@click.option(
    "--token",
    envvar="CELEBFLOW_TOKEN",
    help="Accept only requests that send this token (Authorization: Bearer …). It is required where others can reach "
    "the address. Other users of this machine can see a command's options: better set CELEBFLOW_TOKEN.",
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Also serve requests for this host name, as a reverse proxy or a local network has one; repeat it for others. "
    "Where others can reach the address, requests need the token instead, and any name is allowed.",
)
@click.option(
    "--root-path",
    default="/",
    metavar="PATH",
    help="The path below which a reverse proxy serves this server, such as /faces; it may remove the path or not.",
)
@click.option("--show-training", is_flag=True, help="Also show the photographs of train that a face resembles most.")
@click.option("--max-upload-mb", default=20.0, type=click.FloatRange(0, 1000, True), help="Per photograph.")
@click.option("--max-megapixels", default=50, type=click.IntRange(1, 100), help="Per photograph.")
@click.option("--max-faces", default=20, type=click.IntRange(1), help="Per photograph.")
@click.option("--timeout", default=30.0, type=click.FloatRange(0, 3600, True), help="Seconds per request.")
@click.option(
    "--queue",
    default=128,
    type=click.IntRange(1),
    help="The number of requests that may wait, each with its photographs in memory.",
)
def serve(
    model: str | None,
    revision: str | None,
    host: str,
    port: int,
    token: str | None,
    allowed_hosts: tuple[str, ...],
    root_path: str,
    show_training: bool,
    max_upload_mb: float,
    max_megapixels: int,
    max_faces: int,
    timeout: float,
    queue: int,
) -> None:
    """Predict or compare photographs over HTTP.

    People open the page at /. Programs use /predict, /verify where the model was trained with the task verification, or
    /attributes where it was trained with the task attributes; /docs describes it.

    The model is the workspace's, or the one that --model or --rev chooses; it is loaded once. /healthz says that the
    server is up, and /metrics counts its requests for Prometheus. Photographs are never written to disk and never
    logged. Ctrl-C or SIGTERM ends the server after it has responded to every request.

    \b
    Examples:
      celebflow serve
      curl -F photograph=@holiday.jpg http://127.0.0.1:8000/predict
      curl -F first=@passport.jpg -F second=@selfie.jpg http://127.0.0.1:8000/verify
      curl -F photograph=@holiday.jpg http://127.0.0.1:8000/attributes
      celebflow serve --model models:/celebflow@champion --port 8080
      CELEBFLOW_TOKEN=$(openssl rand -hex 16) celebflow serve --host 0.0.0.0
      celebflow serve --allow-host faces.example --root-path /faces    # behind a reverse proxy
    """
    from celebflow.inference import connections, server
    from celebflow.inference.access import make_access
    from celebflow.inference.loading import load_model
    from celebflow.inference.request_queue import Limits
    from celebflow.inference.rewriting import parse_root_path

    access = make_access(host, token, allowed_hosts)
    root_path = parse_root_path(root_path)
    limits = Limits(round(max_upload_mb * 1e6), max_megapixels * 1_000_000, max_faces, timeout, queue)
    with connections.listen(host, port) as listening, _open_folder(model, revision) as folder:
        app = server.make_app(load_model(folder), limits, access, show_training, root_path)
        address = connections.describe_address(host, listening)
        _echo(f"{app.summary} on {address} (press Ctrl-C to stop).")
        connections.run(app, listening, limits.seconds)


@main.command()
@click.argument("file", type=_FILE, default=Path("celebflow.onnx"))
@_choose_model
def export(file: Path, model: str | None, revision: str | None) -> None:
    """Export the model to ONNX, and check it with ONNX Runtime.

    FILE is celebflow.onnx by default. It holds the backbone and what was trained on it: from 8-bit pixels to calibrated
    probabilities of people or attributes, or for the task verification to coordinates by which pairs of faces are
    scored. It does not detect or crop faces. Its metadata give the transform, the format of the input, and what its
    output means.

    \b
    Examples:
      celebflow export
      celebflow export --rev main people.onnx
    """
    from celebflow.inference.loading import load_model
    from celebflow.inference.onnx_graph import OPSET
    from celebflow.tasks import load_step

    paths.require_writable(file)
    with _open_folder(model, revision) as folder:
        loaded = load_model(folder)
        difference = load_step(loaded.task, "export")(loaded, file)
    _echo(
        f"{file}: {file.stat().st_size / 1e6:,.0f} MB, ONNX opset {OPSET}. What ONNX Runtime computes differs by at "
        f"most {difference:.1e}."
    )


@main.command(cls=_ProjectCommand)
@click.argument("name", type=_NAME, required=False)
def recipe(name: str | None) -> None:
    """Print a recipe for `dvc exp run`, or list recipes.

    NAME is the name of a file in recipes/, or base, the defaults. Without it, all recipes are listed. The arguments
    change the sections extract and train of params.yaml to those of the recipe. The other sections stay as they are:
    where photographs and weights come from, how photographs are split, and where runs are logged.

    \b
    Examples:
      celebflow recipe                              # list recipes, and what they change
      dvc exp run $(celebflow recipe best)          # run a recipe
      dvc exp run --queue $(celebflow recipe fast)  # or queue it
    """
    from celebflow.experiments import recipes
    from celebflow.params import load_params

    if name is not None:
        changes = recipes.find_changes(load_params(paths.PARAMS), recipes.load_recipe(name))
        _echo(" ".join(recipes.list_arguments(changes)))
        return
    for listed in recipes.list_recipes():
        _echo(f"{listed.name}: {listed.reason}")
        for argument in recipes.list_arguments(listed.changes):
            _echo(f"  {argument.removeprefix('--set-param=')}")


@main.command(cls=_ProjectCommand)
@click.argument("spaces", nargs=-1, required=True, metavar="PARAM=VALUES...")
@click.option("--recipe", "recipe_name", help="Start from a recipe instead of params.yaml.")
@click.option("--trials", default=10, type=click.IntRange(1), help="The number of experiments in all.")
@click.option("--metric", default="val.accuracy", help="The metric of val that decides.")
@click.option("--name", default="search", help="The prefix of the experiments' names.")
@click.option(
    "--at-once", default=1, type=click.IntRange(1), help="How many trials the nodes of a cluster train at once."
)
def search(spaces: tuple[str, ...], recipe_name: str | None, trials: int, metric: str, name: str, at_once: int) -> None:
    """Search for the params that do best on validation.

    Each trial is a DVC experiment. PARAM=a,b,c tries these values, PARAM=low..high any value in between. Optuna's TPE
    proposes the next values from the results so far. The experiments run in copies of the repository, so that the
    workspace does not change. In MLflow, their runs are nested under the run of the search.

    The same command continues a search that was interrupted, and with more --trials one that has ended. At the end, the
    best trial is compared with the result that the search started from.

    With --at-once 4, Optuna proposes four trials together, the cluster of compute.cluster trains them at the same time,
    and their experiments take these trainings. Only train.* may differ from the workspace.

    \b
    Examples:
      celebflow search train.dropout=0.3,0.5,0.7 train.learning_rate=1e-5..1e-3 --trials 20
      celebflow search --recipe best train.lda_shrinkage=0.05..0.8 --name shrinkage
      dvc exp apply shrinkage-7                     # bring the best into the workspace
    """
    from celebflow.experiments import recipes, recommendation, search
    from celebflow.params import load_params

    params = load_params(paths.PARAMS)
    fixed = recipes.find_changes(params, recipes.load_recipe(recipe_name)) if recipe_name else {}
    parsed = [search.parse_space(space, params) for space in spaces]

    tried: list[search.Trial] = []

    def show(trial: search.Trial) -> None:
        tried.append(trial)
        values = ", ".join(f"{key}={value}" for key, value in trial.values.items())
        _echo(f"{trial.name}: {values}: " + ("failed" if trial.metric is None else f"{metric} {trial.metric:.4f}"))

    try:
        result = search.search(name, params, fixed, parsed, trials, metric, show, at_once)
    except (KeyboardInterrupt, errors.Terminated):
        _echo("The search stops. The same command continues it.", err=True)
        raise
    finally:  # an interrupted search, too, shows what it has found so far
        if tried:
            _echo(f"\n{search.format_trials(search.rank_trials(tried, metric), metric)}\n")
    _echo(recommendation.format_recommendation(result, fixed))


@main.command(cls=_ProjectCommand)
@click.option("--folds", type=click.IntRange(min=2), default=5, help="How many parts the photographs are divided into.")
@click.option("--limit", default=20, help="The maximum number of suspects in the list; -1 for all.")
@click.option("--output", type=_FILE, default=paths.SUSPECTS_PAGE, help="The page to write.")
@click.option("--json", "as_json", is_flag=True, help="Print all suspects as JSON.")
def suspects(folds: int, limit: int, output: Path, as_json: bool) -> None:
    """Find photographs whose labels may be wrong.

    The photographs of all splits are divided into folds. For each fold, the recipe in params.yaml is trained on the
    others, so that no classifier has learned the label that it judges. A label is suspect where another person, or the
    other answer to an attribute, is clearly more probable (confident learning). Recipes with lda, logistic or ridge
    take seconds, networks as long as training does for each fold.

    The suspects are in reports/suspects.csv, and on a page beside the photographs that they resemble. Look at each
    before you change anything, best with `celebflow review`. What you keep there is no suspect any more.

    \b
    Examples:
      celebflow suspects
      celebflow suspects --folds 10 --limit -1
      celebflow suspects --json | jq -r '.suspects[].path'
    """
    from celebflow.experiments.label_checks import check_workspace, describe_next_step, format_workspace

    with redirect_stdout(sys.stderr):  # what trainings say
        check = check_workspace(folds, output)
    if as_json:
        _echo(json.dumps(asdict(check), indent=2, ensure_ascii=False, allow_nan=False))
        return
    _echo(format_workspace(check, limit))
    _echo(f"\nThe table is in {paths.SUSPECTS}, the page with pictures in {output}.")
    if check.suspects:
        _echo(describe_next_step(check))


@main.command(cls=_ProjectCommand)
@click.option("--folds", type=click.IntRange(min=2), default=5, help="How many parts the photographs are divided into.")
@click.option("--repeats", type=click.IntRange(min=1), default=1, help="How often, with other seeds each time.")
@click.option("--name", type=_NAME, help="The name of the DVC experiment that keeps the result.")
@click.option("--json", "as_json", is_flag=True, help="Print the results of all folds as JSON.")
def crossvalidate(folds: int, repeats: int, name: str | None, as_json: bool) -> None:
    """Measure the recipe on every photograph.

    The photographs of all splits are divided into folds, near-duplicates together. For each fold, the recipe in
    params.yaml is trained on the others, with everything fitted anew, and measured on the fold. The mean is surer than
    a result on val alone, which may hold few photographs, and the standard deviation says how much results vary. Each
    repeat takes other seeds for the folds and for the training.

    A DVC experiment keeps the result, the runs of the folds are nested under one run in MLflow, and `celebflow compare
    --split crossvalidation` compares two results on the same folds. Run `dvc repro` first: the experiment also keeps
    the workspace.

    \b
    Examples:
      celebflow crossvalidate
      celebflow crossvalidate --folds 10 --repeats 3 --name wide
      celebflow compare crossvalidation wide --split crossvalidation
    """
    from celebflow.experiments.crossvalidation import cross_validate, format_cross_validation

    with redirect_stdout(sys.stderr):  # what trainings say
        result = cross_validate(folds, repeats, name)
    if as_json:
        _echo(json.dumps(asdict(result), indent=2, allow_nan=False))
        return
    _echo(format_cross_validation(result))
    _echo(f"\nThe tables are in {paths.CROSS_VALIDATION}, and the experiment {result.experiment} keeps them.")


@main.command(cls=_ProjectCommand)
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="The port of the page; 0 takes a free one.")
@click.option("--no-browser", is_flag=True, help="Only print the page's address, and open no browser.")
def review(port: int, no_browser: bool) -> None:
    """Decide about labels that may be wrong.

    A page in the browser shows each photograph that `celebflow suspects` has listed, beside those that it resembles.
    Keep it (K), move it to the person it looks like (M) or to somebody else (O), delete it (D) or skip it (S); U is
    undo. Photographs move only when you apply the changes (C, then A). They never replace a file, and one that was
    deleted stays in .celebflow/review/deleted.

    With the task attributes, each suspect label is right (K), flipped (F), left blank (B) or skipped (S), and applying
    the changes writes data/attributes.csv. The table as it was is in .celebflow/review/attributes.csv.

    What you keep is remembered by the content of the photograph, in confirmed.csv or confirmed_attributes.csv, and not
    asked again. Nobody else can use the page: it listens on 127.0.0.1, and its address has a token. Ctrl-C ends it, and
    tells what to run.

    \b
    Examples:
      celebflow suspects && celebflow review
      celebflow review --port 8001 --no-browser
    """
    from celebflow.experiments.review_command import run_review

    run_review(port, not no_browser, _echo)


@main.command("learning-curve", cls=_ProjectCommand)
@click.option("--repetitions", type=click.IntRange(min=1), default=5, help="How often parts are drawn at random.")
@click.option("--output", type=_FILE, default=paths.LEARNING_CURVE_FIGURE, help="The figure to draw, a PNG file.")
@click.option("--json", "as_json", is_flag=True, help="Print the curve as JSON.")
def learning_curve(repetitions: int, output: Path, as_json: bool) -> None:
    """Tell how much more photographs would help.

    The recipe in params.yaml is trained on growing parts of train, of each person the same fraction, and measured on
    val. For attributes, parts are of whole people, and average precision is measured. A power law that is fitted to
    the errors says what twice as many photographs would bring, if they were like those that there are. Recipes with
    lda, logistic or ridge take a minute; a network takes two trainings per repetition, and one more.

    \b
    Examples:
      celebflow learning-curve
      celebflow learning-curve --repetitions 1     # for networks
      celebflow learning-curve --json | jq .curve.forecast
    """
    from celebflow.experiments.learning_curves import format_workspace_curve, measure_workspace_curve

    with redirect_stdout(sys.stderr):  # what trainings say
        report = measure_workspace_curve(repetitions, output)
    if as_json:
        _echo(json.dumps(asdict(report), indent=2, ensure_ascii=False, allow_nan=False))
        return
    _echo(format_workspace_curve(report))
    _echo(f"\nThe figure is in {output}, the table in {paths.LEARNING_CURVE}.")


def _show_cache() -> None:
    from celebflow.classifier import checkpoints, fits
    from celebflow.data import checked
    from celebflow.features import cache

    count = checked.count_checked(paths.checked_photographs())
    _echo_line(f"{paths.checked_photographs()}: {count:,} photographs that prepare does not decode again")
    size = cache.measure_cache(paths.feature_cache())
    _echo_line(f"{paths.feature_cache()}: {size.entries:,} entries, {size.disk_bytes / 1e6:,.1f} MB")
    abandoned = checkpoints.list_abandoned()
    megabytes = checkpoints.measure_checkpoints(abandoned) / 1e6
    _echo_line(f"{paths.checkpoints()}: checkpoints of {len(abandoned)} interrupted trainings, {megabytes:,.1f} MB")
    count, size_bytes = fits.measure_fits(paths.fits())
    _echo_line(f"{paths.fits()}: {count} fits for other trainings, {size_bytes / 1e6:,.1f} MB")


if __name__ == "__main__":
    main()
