"""A git and DVC repository with a small version of the project, for tests that run commands."""

import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import psutil
import pytest
import requests
from click.testing import CliRunner
from filelock import FileLock

from celebflow import cli
from celebflow.data import invented_people
from celebflow.errors import CelebflowError
from celebflow.tracking.artifacts import move_artifacts
from tests import COMMITTED_PARAMS, REPOSITORY
from tests.preloaded import PROGRAMS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Few people, small images and a small classifier: the stages are the real ones.
CHANGES = {
    "weights: imagenet": "weights: untrained",
    "image_size_px: 224": "image_size_px: 64",
    "  hidden_units:\n  - 4096\n  - 4096\n": "  hidden_units:\n  - 64\n",
    "epochs: 10": "epochs: 3",
    "learning_rate: 0.0001": "learning_rate: 0.001",
}
EVERY_STAGE = ["prepare", "backbone", "extract", "train", "evaluate", "plot"]


class Repository:
    """A copy of the project with small params, where commands run as a user would type them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_", "GIT_"))}
        self.environment = kept | {
            "DVC_NO_ANALYTICS": "true",
            "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "tmp" / "site"),  # the default, /var/tmp, outlives the test
            "GIT_AUTHOR_EMAIL": "tester@example.org",
            "GIT_AUTHOR_NAME": "Tester",
            "GIT_COMMITTER_EMAIL": "tester@example.org",
            "GIT_COMMITTER_NAME": "Tester",
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # the processes for MLflow's own jobs take 16 s to start
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        self._preloaded_path = os.environ.get(PROGRAMS, "") + os.pathsep + self.environment["PATH"]

    @contextmanager
    def variables(self, **values: str) -> Iterator[None]:
        """Set environment variables within a `with` block."""
        before = self.environment
        self.environment = {**before, **values}
        try:
            yield
        finally:
            self.environment = before

    def start(
        self, *command: str, log: IO[str] | int = subprocess.PIPE, preloaded: bool = False
    ) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, as a shell does.

        A preloaded one saves seconds, but gets no signals, and no variables that Python reads as it starts.
        """
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment | ({"PATH": self._preloaded_path} if preloaded else {}),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, status: int = 0, preloaded: bool = True) -> str:
        """Run a command, check its exit status, and return what it printed."""
        process = self.start(*command, preloaded=preloaded)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == status, output
        return output

    def invoke(self, *arguments: str, fails: bool = False, only_output: bool = False) -> str:
        """Run a command of celebflow in this process, and return what it printed and the error it ended with.

        With `only_output`, what it printed to standard error is left out.
        """
        return self._call(cli.main, arguments, fails, only_output)

    def run_stage(self, name: str, *, fails: bool = False) -> str:
        """Run a stage's main in this process without DVC, and return what it printed and the error it ended with."""
        main = importlib.import_module(f"stages.{name}").main
        return self._call(click.Command(name, callback=main), (), fails)

    def _call(self, command: click.Command, arguments: Sequence[str], fails: bool, only_output: bool = False) -> str:
        """Call a command, which takes seconds less than a process that has to import torch, MLflow and DVC."""
        with chdir(self.folder):
            environment = {"MLFLOW_TRACKING_URI": None, **self.environment, "PATH": self._preloaded_path}
            result = CliRunner(env=environment).invoke(command, arguments)
        error = result.exception
        if error is not None and not isinstance(error, CelebflowError):
            raise error
        assert (error is not None) == fails, result.output
        output = result.stdout if only_output else result.output
        return f"{output}error: {error}" if error else output

    def run_queued(self, **experiments: str) -> None:
        """Queue an experiment for each name and change of the params, and run them until evaluate with two workers."""
        for name, change in experiments.items():
            self.run("dvc", "exp", "run", "--queue", "--set-param", change, "--name", name, "evaluate")
        # The workers of DVC outlive this command and keep its output open, so a pipe would never end.
        workers = self.start("dvc", "queue", "start", "--jobs", "2", log=subprocess.DEVNULL, preloaded=True)
        assert workers.wait(300) == 0
        deadline = time.monotonic() + 300
        while not experiments.keys() <= self.list_experiments():
            assert time.monotonic() < deadline, self.run("dvc", "queue", "status")
            time.sleep(1)
        # One of DVC's workers sometimes removes the file that tells the other to end.
        deadline = time.monotonic() + 60
        while any(process.info["cwd"] == str(self.folder) for process in psutil.process_iter(["cwd"])):
            if time.monotonic() > deadline:
                self.run("dvc", "queue", "stop")
                break
            time.sleep(0.5)

    def list_experiments(self) -> set[str]:
        """Return the names of the experiments that have a result; asking git takes less time than asking DVC."""
        names = self.run("git", "for-each-ref", "--format=%(refname)", "refs/exps")
        return {name.rpartition("/")[2] for name in names.split() if not name.startswith("refs/exps/exec/")}

    def repro(self, *arguments: str, preloaded: bool = True) -> list[str]:
        """Run dvc repro and return the stages that ran."""
        return re.findall(r"Running stage '(\w+)'", self.run("dvc", "repro", *arguments, preloaded=preloaded))

    def start_training(self) -> subprocess.Popen[str]:
        """Start only the stage train, and return when it has logged an epoch."""
        count = len(self.runs())
        process = self.start("python", "-m", "stages.train")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and (len(runs := self.runs()) == count or not runs[0].data.metrics):
            time.sleep(0.2)
        return process

    def commit(self, message: str) -> None:
        """Commit what git tracks and every new file."""
        self.run("git", "add", ".")
        self.run("git", "commit", "--quiet", "--message", message)

    def edit(self, old: str, new: str) -> None:
        """Change params.yaml."""
        file = self.folder / "params.yaml"
        content = file.read_text(encoding="utf-8")
        assert old in content
        file.write_text(content.replace(old, new), encoding="utf-8")

    def run_id(self) -> str:
        """Return the id of the workspace's MLflow run."""
        return (self.folder / "models" / "mlflow_run_id.txt").read_text()

    @contextmanager
    def serve(self, *command: str, path: str) -> Iterator[str]:
        """Start a server with `--port`, wait until it serves `path`, yield its address, and stop it."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
        with (self.folder / "server.log").open("w") as log:
            process = self.start(*command, "--host", "127.0.0.1", "--port", str(port), log=log)
        try:
            while True:
                try:
                    requests.get(f"{address}{path}", timeout=5).raise_for_status()
                    break
                except requests.RequestException:
                    alive = process.poll() is None and time.monotonic() < deadline
                    assert alive, (self.folder / "server.log").read_text()
                    time.sleep(0.3)
            yield address
        finally:
            with suppress(ProcessLookupError):  # the server did not start
                os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=60)

    @property
    def client(self) -> "MlflowClient":
        """Return a client of the repository's own MLflow store."""
        from mlflow import MlflowClient  # takes seconds to import, and few tests need it

        return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def runs(self) -> list["Run"]:
        """Return the MLflow runs, newest first."""
        client = self.client
        return list(client.search_runs([experiment.experiment_id for experiment in client.search_experiments()]))

    def list_steps(self, run_id: str, metric: str) -> list[int]:
        """Return the epochs at which a run logged a metric."""
        return [each.step for each in self.client.get_metric_history(run_id, metric)]

    def read_metrics(self) -> Any:
        """Return what reports/all_metrics.json holds."""
        return json.loads((self.folder / "reports" / "all_metrics.json").read_text())


def make_repository(folder: Path, people: int = 6) -> Repository:
    """Copy the project to a new folder, draw photographs of some people, and commit both; no stage has run."""
    for name in ("celebflow", "stages", "recipes"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, folder / name)
    (folder / "params.yaml").write_text(COMMITTED_PARAMS, encoding="utf-8")
    for person, name in enumerate(invented_people.PEOPLE[:people]):
        (folder / "data" / name).mkdir(parents=True)
        for number in range(10):
            invented_people.draw_photograph(person, number).save(folder / "data" / name / f"{number}.png")
    repository = Repository(folder)
    for old, new in CHANGES.items():
        repository.edit(old, new)
    repository.run("git", "init", "--quiet")
    repository.run("dvc", "init", "--quiet")
    for name in ("config", "plots.html"):
        shutil.copy(REPOSITORY / ".dvc" / name, folder / ".dvc" / name)
    shutil.copytree(REPOSITORY / ".dvc" / "plots", folder / ".dvc" / "plots")
    repository.run("dvc", "add", "--quiet", "data")
    repository.commit("start")
    return repository


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a file or folder of this name, which `make` makes once for all workers; tests do not change it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # the folder of the session, in which each worker has its own
    with FileLock(base / f"{name}.lock"):
        if not (base / name).exists():
            # A process that fails on the way leaves nothing that others would take for whole.
            unfinished = base / f"unfinished_{name}"
            make(unfinished)
            unfinished.rename(base / name)
    return base / name


def make_repository_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Repository]) -> Repository:
    """Return a repository, which `make` makes in a new folder once for all workers; tests change only copies of it."""
    folder = make_once(factory, name, make)
    move_artifacts(folder / "mlflow.db")
    return Repository(folder)


def make_repository_with_result(folder: Path) -> Repository:
    """Make a repository with a committed result."""
    repository = make_repository(folder)
    assert repository.repro(preloaded=False) == EVERY_STAGE
    repository.commit("first result")
    return repository


def clone_repository(template: Repository, folder: Path) -> Repository:
    """Copy a repository with its git history, DVC cache, MLflow store and results to a new folder."""
    cache = template.folder / ".dvc" / "cache"

    def copy(source: str, target: str) -> None:
        # DVC never writes to a file of its cache, so that copies may share it.
        if cache in Path(source).parents:
            os.link(source, target)
        else:
            shutil.copy2(source, target)

    shutil.copytree(template.folder, folder, symlinks=True, copy_function=copy)
    move_artifacts(folder / "mlflow.db")
    return Repository(folder)
