"""The command line `celebflow`; torch and mlflow are imported only by the commands that need them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from celebflow import errors

if TYPE_CHECKING:
    from celebflow.evaluation.comparison import ResultComparison
    from celebflow.inference.predictor import Predictor


class _Group(click.Group):
    """A group of commands that ends on SIGTERM and CelebflowError as the stages do; Ctrl-C is click's."""

    def __call__(self, *args: object, **kwargs: object) -> None:
        errors.run_to_exit(self.main)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="celebflow")
def main() -> None:
    """Teach a frozen VGG19 to name the people in photographs.

    The pipeline itself is run with DVC: `dvc repro` (see README.md).
    """


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def sample(folder: Path) -> None:
    """Draw the demo's photographs of 31 invented people into FOLDER.

    They are the same files, byte for byte, each time. Files of other names in FOLDER are an error, so that nobody's
    own photographs are mixed with invented ones.

    \b
    Example:
      celebflow sample data     # then: dvc exp run -S backbone.weights=untrained
    """
    from tqdm import tqdm

    from celebflow.data import invented_people

    drawn = invented_people.draw_sample_data(folder)
    for _ in tqdm(drawn, "drawing", invented_people.PHOTOGRAPH_COUNT, unit="photograph", disable=None):
        pass
    click.echo(
        f"{invented_people.PHOTOGRAPH_COUNT} photographs of {len(invented_people.PEOPLE)} invented people are in "
        f"{folder}."
    )


@main.group(invoke_without_command=True)
@click.pass_context
def cache(context: click.Context) -> None:
    """Show what .celebflow keeps, and how large it is.

    \b
    Examples:
      celebflow cache           # how large
      celebflow cache prune     # keep only what the photographs here need
    """
    if context.invoked_subcommand is None:
        _show_cache()


@cache.command()
@click.option("--all", "everything", is_flag=True, help="Drop the features of the photographs here, too.")
def prune(everything: bool) -> None:
    """Keep only what the photographs here need.

    Features are dropped of photographs that are no longer here, or that another backbone, crop, view or runtime made.
    Interrupted trainings lose their checkpoints. Nothing is lost for good: what is needed later is computed again.

    \b
    Examples:
      celebflow cache prune          # after photographs went, or to forget other backbones
      celebflow cache prune --all    # to free all the room
    """
    import shutil

    from celebflow import paths
    from celebflow.classifier import checkpoints
    from celebflow.data.photos import load_photos
    from celebflow.features.cache import prune_cache
    from celebflow.features.origin import FeatureOrigin, origin_file

    origin = origin_file(paths.FEATURES)
    if not everything and not (origin.exists() and paths.PHOTOS.exists()):
        raise errors.CelebflowError(
            f"{origin} or {paths.PHOTOS} is missing, so it is not known what the photographs here need. Run "
            "`dvc repro` first, or drop all with --all."
        )
    if everything:
        shutil.rmtree(paths.feature_cache(), ignore_errors=True)
    else:
        prune_cache(paths.feature_cache(), load_photos(paths.PHOTOS), FeatureOrigin.load(origin))
    checkpoints.remove_abandoned()
    _show_cache()


@main.group(invoke_without_command=True)
@click.option("--commits", default=1, show_default=True, help="How many of the last commits; -1 for all.")
@click.pass_context
def runs(context: click.Context, commits: int) -> None:
    """List results of commits and experiments.

    Each stands with its MLflow run. Beside its metrics stands what differs in their params from the last commit.

    \b
    Examples:
      celebflow runs                 # the workspace, the last commit and the experiments from it
      celebflow runs --commits -1    # all
      celebflow runs sync            # log the runs that MLflow's store could not take
    """
    if context.invoked_subcommand is None:
        _show_runs(commits)


@runs.command()
@click.option("--here", is_flag=True, help="Also log runs to the present store that were meant for another.")
def sync(here: bool) -> None:
    """Log the runs that wait here to MLflow's store.

    With tracking.required set to false, a run waits there when the store cannot be reached.

    \b
    Examples:
      celebflow runs sync
      MLFLOW_TRACKING_URI=http://127.0.0.1:5000 celebflow runs sync
      celebflow runs sync --here     # the server is gone for good
    """
    from celebflow.tracking.syncing import sync_runs

    outcomes = []
    for outcome in sync_runs(here):
        outcomes.append(outcome)
        click.echo(f"{outcome.name}: {outcome.run_id or outcome.reason}")
    left = sum(not outcome.run_id for outcome in outcomes)
    click.echo(f"{len(outcomes) - left} runs synced." if outcomes else "No runs wait.")
    if left:
        raise errors.CelebflowError(f"{left} runs still wait.")


@main.command()
@click.argument("run", required=False)
@click.option(
    "--metric", default="val/final_accuracy", show_default=True, help="Without RUN: what the best is best in."
)
@click.option("--alias", default="champion", show_default=True, help="What to call the version.")
def register(run: str | None, metric: str, alias: str) -> None:
    """Make a run's model a version of MLflow's registered model.

    It is called celebflow. RUN is the id of an MLflow run, or its beginning, or the name of a DVC experiment. Without
    it, the best of the runs on the present photographs and split is taken, by a metric of validation.

    \b
    Examples:
      celebflow register
      celebflow register --metric val/final_macro_auc
      celebflow register faster-rate --alias challenger
      mlflow models serve -m models:/celebflow@champion --env-manager local
    """
    from celebflow.experiments import registry

    chosen, version = registry.register(run, metric, alias)
    figures = ", ".join(f"{n} {v:.4f}" for n, v in chosen.data.metrics.items() if n == metric)
    click.echo(
        f"{chosen.info.run_name} ({chosen.info.run_id}{', ' if figures else ''}{figures}) is version "
        f"{version.version} of {registry.NAME}, alias {alias}."
    )
    click.echo(f"Serve it: mlflow models serve -m models:/{registry.NAME}@{alias} --env-manager local")


@main.command()
@click.argument("a")
@click.argument("b", default="workspace")
@click.option(
    "--split", type=click.Choice(["val", "test"]), default="val", show_default=True, help="Which photographs."
)
@click.option("--limit", default=20, show_default=True, help="How many photographs to list of each kind; -1 for all.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write it as a page to this file.")
def compare(a: str, b: str, split: str, limit: int, as_json: bool, html: Path | None) -> None:
    """Say whether result B is better than result A.

    And for whom, and on which photographs. Each is a revision or an experiment of DVC's, an MLflow run (its id or
    the beginning), or workspace, which B is when it is left out. They are compared on the photographs that both
    have in the split.

    The p value is that of McNemar's exact test: how likely so uneven a share of the photographs that only one of them
    names rightly is, if neither is better. The interval comes from a paired bootstrap of groups of near-duplicates.
    Choose by validation; what test says is for the report.

    \b
    Examples:
      celebflow compare HEAD                     # the workspace against the last commit
      celebflow compare main lower-rate          # an experiment against a branch
      celebflow compare HEAD~1 HEAD --split test
      celebflow compare HEAD --html comparison.html
    """
    import json
    from dataclasses import asdict

    from celebflow.evaluation.comparison import compare_predictions
    from celebflow.experiments.lookup import find_predictions

    if html is not None:
        from celebflow.experiments.pages import save_comparison

        save_comparison(a, b, split, html)
        click.echo(f"{html} is written.", err=True)
    compared = compare_predictions(*(find_predictions(name, split) for name in (a, b)))
    if as_json:
        click.echo(json.dumps({"a": a, "b": b, "split": split, **asdict(compared)}, indent=2))
    else:
        _show_comparison(a, b, split, compared, limit)


@main.command()
@click.option("--against", "revision", required=True, help="The result to compare with, named as in compare.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("reports/comparison.html"),
    show_default=True,
    help="The file to write.",
)
def page(revision: str, output: Path) -> None:
    """Write the workspace's page with a comparison in it.

    It is reports/index.html, and on top of it what differs from another result: params, metrics, and the photographs
    of val that were fixed or broken.

    \b
    Examples:
      celebflow page --against HEAD
      celebflow page --against less-dropout --output ~/less-dropout.html
    """
    from celebflow.experiments.pages import save_page_against

    save_page_against(revision, output)
    click.echo(f"{output} is written.")


@main.command("open-set")
@click.argument("folder", default="data_unknown", type=click.Path(path_type=Path, file_okay=False, exists=True))
def open_set(folder: Path) -> None:
    """Measure how many unknown people would get a name.

    FOLDER holds photographs of people whom the workspace's classifier was not trained on. Prints how many of them
    reach its threshold, and how well the confidence separates them from the known people of the test split. The
    threshold was fitted on validation, for train.false_acceptance_rate, without any unknown person.

    \b
    Examples:
      celebflow open-set                    # those in data_unknown
      celebflow open-set ~/other-people
    """
    from celebflow import paths
    from celebflow.evaluation.results import load_predictions
    from celebflow.inference.open_set import measure_open_set
    from celebflow.inference.predictor import Predictor

    predictions = paths.REPORTS / "test" / "predictions.csv"
    if not predictions.exists():
        raise errors.CelebflowError(f"{predictions} is missing. Run `dvc repro` first.")
    predictor = Predictor.load(paths.CLASSIFIER.parent)
    report = measure_open_set(folder, predictor, load_predictions(predictions))
    calibration = predictor.card.calibration
    for line in report.unreadable:
        click.echo(f"left out: {line}", err=True)
    click.echo(
        f"{report.accepted} of {report.count} photographs of unknown people ({report.accepted / report.count:.1%}) "
        f"reach the threshold {calibration.threshold:.3f}, which was fitted for "
        f"{calibration.false_acceptance_rate:.1%}. Of known people's test photographs {report.known_coverage:.1%} do."
    )
    click.echo(f"AUC of known against unknown people: {report.auc:.4f}")
    if report.predicted:
        click.echo("Predicted as: " + ", ".join(f"{name} ({count})" for name, count in report.predicted))


def _choose_model(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that `_open_model` takes."""
    for option in (
        click.option("--rev", "revision", help="The model of a revision or an experiment of DVC's."),
        click.option("--model", help="A folder with a model, or an address of MLflow's: models:/celebflow@champion."),
    ):
        command = option(command)
    return command


@main.command()
@click.argument("photographs", nargs=-1, required=True, metavar="PHOTO|FOLDER|-...")
@_choose_model
@click.option("--top", default=3, show_default=True, type=click.IntRange(1), help="How many names to give a face.")
@click.option("--json", "format_name", flag_value="json", help="Print an array with an object for each face.")
@click.option("--csv", "format_name", flag_value="csv", help="Print a row for each name of each face.")
def predict(
    photographs: tuple[str, ...], model: str | None, revision: str | None, top: int, format_name: str | None
) -> None:
    """Name the people in photographs.

    They are files, those in FOLDERs at any depth, or standard input (-).

    The model is the workspace's, or the one that --model or --rev says. Below the threshold that was fitted with it,
    a face is unknown. Where the model looks for faces, each in a photograph is named, with its box in pixels;
    otherwise the photograph as a whole. What is no photograph is told on standard error, the others are named, and
    the exit status is 1.

    \b
    Examples:
      celebflow predict holiday.jpg
      celebflow predict ~/photos --csv > names.csv
      celebflow predict --model models:/celebflow@champion holiday.jpg
      celebflow predict --rev main --json - < holiday.jpg
    """
    import sys

    from tqdm import tqdm

    from celebflow.inference import files

    with _open_model(model, revision) as predictor:
        listed = files.list_photographs(photographs)
        refused = []

        def refuse(name: str, reason: str) -> None:
            refused.append(name)
            tqdm.write(f"{name}: {reason}", file=sys.stderr)

        def read(name: str) -> bytes:
            return sys.stdin.buffer.read() if name == files.STANDARD_INPUT else Path(name).read_bytes()

        # A bar for one photograph would be gone before it was seen.
        asked = tqdm(listed, "asking", unit="photograph", disable=True if len(listed) == 1 else None)
        answers = list(files.predict_photographs(asked, read, predictor, top, refuse))
    formats = {"json": files.format_json, "csv": files.format_csv, None: files.format_table}
    if answers or format_name:
        click.echo(formats[format_name](answers))
    if refused:
        raise errors.CelebflowError(f"{len(refused)} of {len(listed)} are no photographs that can be read.")


@contextmanager
def _open_model(model: str | None, revision: str | None) -> Iterator["Predictor"]:
    """Load the model that options name; MLflow and DVC are imported only where they are needed."""
    from celebflow import paths
    from celebflow.inference.predictor import Predictor

    if model is not None and revision is not None:
        raise click.UsageError("--model and --rev name two models: give one of them.")
    if revision is None and not (model or "").startswith(("models:/", "runs:/")):
        yield Predictor.load(paths.CLASSIFIER.parent if model is None else Path(model))
        return
    from celebflow.experiments.lookup import fetch_model

    with fetch_model(model, revision) as folder:
        yield Predictor.load(folder)


@main.command()
@_choose_model
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes any that is free."
)
@click.option(
    "--token",
    envvar="CELEBFLOW_TOKEN",
    help="Answer only who sends it (Authorization: Bearer …); must be given where others can reach the address. Other "
    "users of this machine can see a command's options: better set CELEBFLOW_TOKEN.",
)
@click.option("--show-training", is_flag=True, help="Show also the photographs of train that a face is most like.")
@click.option(
    "--max-upload-mb", default=20.0, show_default=True, type=click.FloatRange(0, 1000, True), help="Of a photograph."
)
@click.option("--max-megapixels", default=50, show_default=True, type=click.IntRange(1, 100), help="Of a photograph.")
@click.option("--max-faces", default=20, show_default=True, type=click.IntRange(1), help="How many to name in one.")
@click.option(
    "--timeout", "seconds", default=30.0, show_default=True, type=click.FloatRange(0, 3600, True), help="Seconds."
)
@click.option(
    "--queue",
    default=128,
    show_default=True,
    type=click.IntRange(1),
    help="How many requests may wait, each with its photograph in memory.",
)
def serve(
    model: str | None,
    revision: str | None,
    host: str,
    port: int,
    token: str | None,
    show_training: bool,
    max_upload_mb: float,
    max_megapixels: int,
    max_faces: int,
    seconds: float,
    queue: int,
) -> None:
    """Name the people in photographs over HTTP.

    There is a page at /, and for programs /predict, described at /docs.

    The model is the workspace's, or the one that --model or --rev says; it is loaded once. /healthz tells that the
    server answers, /metrics what it did (for Prometheus). Photographs are never written to disk and never logged.
    Ctrl-C or SIGTERM ends it when what has been asked is answered.

    \b
    Examples:
      celebflow serve
      curl -F photograph=@holiday.jpg http://127.0.0.1:8000/predict
      celebflow serve --model models:/celebflow@champion --port 8080
      CELEBFLOW_TOKEN=$(openssl rand -hex 16) celebflow serve --host 0.0.0.0
    """
    from celebflow.inference import connections, server
    from celebflow.inference.access import make_access
    from celebflow.inference.batcher import Limits

    access = make_access(host, token)
    limits = Limits(round(max_upload_mb * 1e6), max_megapixels * 1_000_000, max_faces, seconds, queue)
    with connections.listen(host, port) as listening, _open_model(model, revision) as predictor:
        app = server.make_app(predictor, limits, access, show_training)
        address = connections.describe_address(host, listening)
        click.echo(f"Naming {len(predictor.card.class_names)} people on {address} (Ctrl-C ends it).")
        connections.run(app, listening, limits)


@main.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default=Path("celebflow.onnx"))
@_choose_model
def export(file: Path, model: str | None, revision: str | None) -> None:
    """Write the model in ONNX, and check it with ONNX Runtime.

    FILE is celebflow.onnx by default. In it are backbone and classifier, from 8-bit pixels to calibrated
    probabilities; finding and cutting out faces is not. Its metadata tell class names, transform, threshold, and
    what goes in.

    \b
    Examples:
      celebflow export
      celebflow export --rev main people.onnx
    """
    from celebflow.inference.onnx_export import OPSET, export_model

    with _open_model(model, revision) as predictor:
        difference = export_model(predictor, file)
    click.echo(
        f"{file}: {file.stat().st_size / 1e6:,.0f} MB, ONNX opset {OPSET}. ONNX Runtime's probabilities differ by "
        f"{difference:.1e} at most."
    )


@main.command()
@click.argument("name", required=False)
def recipe(name: str | None) -> None:
    """Turn a recipe into arguments of `dvc exp run`, or list them.

    NAME is that of a file in recipes/; without it, all are listed. The arguments change params.yaml's extract and
    train sections into the recipe's, wherever they differ now. Where the photographs and weights come from, how
    photographs are split and where runs are logged stays as it is.

    \b
    Examples:
      celebflow recipe                              # which there are, and how they differ from the base recipe
      dvc exp run $(celebflow recipe best)          # run one
      dvc exp run --queue $(celebflow recipe fast)  # or queue it
    """
    from celebflow import paths
    from celebflow.experiments import recipes
    from celebflow.params import load_params

    if name is not None:
        current, wanted = load_params(paths.PARAMS), recipes.load_recipe(name)
        click.echo(" ".join(recipes.list_arguments(recipes.find_changes(current, wanted))))
        return
    for each in recipes.list_recipes():
        click.echo(f"{each.name}: {each.reason}")
        for argument in recipes.list_arguments(each.changes):
            click.echo(f"  {argument.removeprefix('--set-param=')}")


@main.command()
@click.argument("spaces", nargs=-1, required=True, metavar="PARAM=VALUES...")
@click.option("--recipe", "recipe_name", help="Start from a recipe rather than from params.yaml.")
@click.option("--trials", default=10, show_default=True, type=click.IntRange(1), help="How many experiments to run.")
@click.option("--metric", default="val.accuracy", show_default=True, help="What the best is best in.")
@click.option("--name", default="search", show_default=True, help="What the experiments' names begin with.")
def search(spaces: tuple[str, ...], recipe_name: str | None, trials: int, metric: str, name: str) -> None:
    """Try values of params, and say which did best on validation.

    Each try is a DVC experiment. PARAM=a,b,c tries these values, PARAM=low..high any between. What is tried next
    follows from what did well (Optuna's TPE). The experiments run in copies of the repository, so that the
    workspace stays as it is; in MLflow their runs stand below one of the search's.

    \b
    Examples:
      celebflow search train.dropout=0.3,0.5,0.7 train.learning_rate=1e-5..1e-3 --trials 20
      celebflow search --recipe best train.lda_shrinkage=0.05..0.8 --name shrinkage
      dvc exp apply shrinkage-7                     # take the best over to the workspace
    """
    from tabulate import tabulate

    from celebflow import paths
    from celebflow.experiments import recipes, search
    from celebflow.params import load_params

    params = load_params(paths.PARAMS)
    fixed = recipes.find_changes(params, recipes.load_recipe(recipe_name)) if recipe_name else {}
    parsed = [search.parse_space(space, params) for space in spaces]

    def show(trial: search.Trial) -> None:
        values = ", ".join(f"{key}={value}" for key, value in trial.values.items())
        click.echo(f"{trial.name}: {values}: " + ("failed" if trial.metric is None else f"{metric} {trial.metric:.4f}"))

    found = search.search(name, params, fixed, parsed, trials, metric, show)
    rows = [[trial.name, trial.metric, *trial.values.values()] for trial in found[:10]]
    click.echo("\n" + tabulate(rows, ["experiment", metric, *found[0].values], tablefmt="plain", floatfmt=".4g"))
    click.echo(f"\nTake the best over with: dvc exp apply {found[0].name}")


def _show_comparison(a: str, b: str, split: str, compared: "ResultComparison", limit: int) -> None:
    from tabulate import tabulate

    overall = compared.overall
    click.echo(f"A: {a}, B: {b}, {compared.count} photographs of {split} in both", nl=False)
    missing = {"A": compared.missing_from_a, "B": compared.missing_from_b}
    click.echo("".join(f", {count} missing from {name}" for name, count in missing.items() if count) + ".")
    click.echo(
        f"Accuracy: A {compared.accuracy_a:.4f}, B {compared.accuracy_b:.4f}, difference {overall.difference:+.4f} "
        f"(95 % interval {overall.interval.low:+.4f} to {overall.interval.high:+.4f})."
    )
    click.echo(f"Only A is right on {overall.only_a}, only B on {overall.only_b}: p = {overall.p_value:.2g}.")
    click.echo(compared.verdict())
    changed = sorted(
        (person for person in compared.people if person.hits_a != person.hits_b),
        key=lambda person: (person.hits_a - person.hits_b, person.person),
    )
    if changed:
        rows = [[p.person, p.support, p.hits_a, p.hits_b, f"{p.hits_b - p.hits_a:+d}"] for p in changed]
        headers = ["person", "photographs", "A right", "B right", "change"]
        click.echo("\n" + tabulate(rows, headers, tablefmt="plain", disable_numparse=[4], colalign=["left"]))
    for title, changes in (("B alone is right", compared.fixed), ("A alone is right", compared.broken)):
        if changes:
            shown = changes if limit < 0 else changes[:limit]
            rows = [[change.b.path, change.a.predicted, change.b.predicted] for change in shown]
            headers = [title, "A says", "B says"]
            click.echo("\n" + tabulate(rows, headers, tablefmt="plain", disable_numparse=True))
            if len(shown) < len(changes):
                click.echo(f"and {len(changes) - len(shown)} more; --limit -1 lists all")


def _show_runs(commit_count: int) -> None:
    from tabulate import tabulate

    from celebflow.experiments.results import list_results
    from celebflow.tracking.stores import follow_run

    results = list_results(commit_count)
    metrics = list(dict.fromkeys(name for result in results for name in result.metrics))
    rows = [
        [
            result.experiment or result.revision,
            *(result.metrics.get(name) for name in metrics),
            ", ".join(f"{name}={value}" for name, value in result.changed_params.items()),
            follow_run(result.run_id)[0],
        ]
        for result in results
    ]
    headers = ["result", *metrics, "params that differ", "MLflow run"]
    click.echo(tabulate(rows, headers, tablefmt="plain", floatfmt=".4f", disable_numparse=[len(headers) - 1]))


def _show_cache() -> None:
    from celebflow import paths
    from celebflow.classifier import checkpoints
    from celebflow.features import cache

    size = cache.measure_cache(paths.feature_cache())
    click.echo(f"{paths.feature_cache()}: {size.entries:,} entries, {size.disk_bytes / 1e6:,.1f} MB")
    abandoned = checkpoints.list_abandoned()
    megabytes = checkpoints.measure_checkpoints(abandoned) / 1e6
    click.echo(f"{paths.checkpoints()}: checkpoints of {len(abandoned)} interrupted trainings, {megabytes:,.1f} MB")


if __name__ == "__main__":
    main()
