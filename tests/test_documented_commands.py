"""The commands in the documentation run, one after the other, in a small repository; its commits are reproducible."""

import hashlib
import re
import shlex
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from celebflow.data import invented_people
from tests import REPOSITORY
from tests.documentation import PAGES, README, Command, list_blocks, list_commands, name_page
from tests.repository import Repository

# Readers follow the pages of a walk one after the other in one repository.
WALKS = [
    [README, *(REPOSITORY / "docs" / f"{name}.md" for name in ("data", "results", "experiments"))],
    [REPOSITORY / "docs" / "prediction.md"],
    [REPOSITORY / "docs" / "verification.md"],
    [REPOSITORY / "docs" / "attributes.md", REPOSITORY / "docs" / "scale.md"],
]

# Commands that the test does not run, and why.
NOT_RUN = {
    "make demo": "it draws 930 photographs; tests/data and tests/pipeline run the same commands, the second in small",
    "make test": "it would run this test",
    "make install && . .venv/bin/activate": "it installs packages from a registry",
    "dvc exp run $(celebflow recipe best)": "tests/experiments/test_recipes.py runs it in small",
    "CELEBFLOW_TOKEN=$(cat ~/token) celebflow serve --allow-host faces.example --root-path /faces": "tests/inference/"
    "test_reverse_proxy.py runs it",
    **dict.fromkeys(
        (
            "dvc exp run $(celebflow recipe verification)",
            "celebflow verify one.jpg other.jpg",
            "celebflow verify --pairs pairs.csv --csv > answers.csv",
            "curl -s -F first=@passport.jpg -F second=@selfie.jpg http://127.0.0.1:8000/verify",
        ),
        "tests/pipeline/test_verification.py runs the task in small, and tests/inference/"
        "test_verification_service.py the server",
    ),
    "pip install 'celebflow[ray]'": "it installs packages from a registry",
    **dict.fromkeys(
        (
            "ray get-auth-token --generate",
            "export RAY_AUTH_MODE=token",
            "ray start --head",
            "ray start --address=192.0.2.1:6379",
        ),
        "tests/test_cluster.py runs them on a port of its own",
    ),
    **dict.fromkeys(
        (
            "pip install 'celebflow[s3]'",
            "dvc remote add --default storage s3://BUCKET/celebflow",
            "export MLFLOW_TRACKING_URI=sqlite:///mlflow.db",
            "mlflow experiments create --experiment-name celebflow --artifact-location s3://BUCKET/runs",
        ),
        "tests/tracking/test_s3.py runs them with a server for S3",
    ),
    "celebflow page --why": "it trains many times; tests/experiments/test_pages.py runs it",
    "celebflow drift ~/new-photographs --sheet drift.png": "tests/experiments/test_drift.py draws photographs",
    "celebflow review": "it serves until Ctrl-C; tests/experiments/test_review_command.py and test_review_page.py do",
    "dvc exp run $(celebflow recipe attributes)": "it needs labels; tests/report and tests/evaluation make results",
    **dict.fromkeys(
        (
            "celebflow predict --model models:/celebflow-attributes@champion portrait.jpg other.jpg",
            "celebflow predict --model models --model models:/celebflow-attributes@champion portrait.jpg",
            "curl -s -F photograph=@two.jpg http://127.0.0.1:8000/attributes",
        ),
        "tests/inference/test_predicting_together.py and test_attribute_service.py ask models of attributes",
    ),
    "celebflow search --recipe fast train.lda_shrinkage=0.02..0.8 train.preprocessing.pca_components=100,300,600 "
    "--trials 12 --name shrinkage": "tests/experiments/test_search.py runs a search in small",
    "celebflow search train.dropout=0.2..0.6 train.learning_rate=1e-5..1e-3 --trials 20 --at-once 4": "it needs a "
    "cluster; tests/experiments/test_search_training.py runs a search in small",
}
# Commands whose place another takes, because the search does not run.
IN_SMALL = {"dvc exp apply shrinkage-7": "dvc exp apply less-dropout"}
# Commands that serve until the walk ends: the address in the documentation, and a path that answers once they are up.
# The test starts them on a free port, and puts it in the place of the documented address. More arguments save seconds.
SERVERS = {
    "celebflow serve": ("http://127.0.0.1:8000", "/healthz"),
    "mlflow ui": ("http://127.0.0.1:5000", "/health", "--workers", "1"),
    "mlflow models serve -m models:/celebflow@champion --env-manager local --port 5001": (
        "http://127.0.0.1:5001",
        "/ping",
    ),
}
# Commands of celebflow that this process cannot run; the others save the seconds that a process takes to import.
IN_A_PROCESS = {"register": "MLflow uses what pandas has deprecated"}
# Commands whose first line of output is another in the small repository, and why.
OTHER_OUTPUT = {
    "ls data/": "the people are others",
    "celebflow register": "the best run is another",
    "celebflow predict two.jpg": "faces have boxes only where the model detects them",
}


def test_lists_of_special_commands_hold_only_documented_ones() -> None:
    documented = {command.text for page in PAGES for command in list_commands(page)}
    assert {*NOT_RUN, *IN_SMALL, *SERVERS, *OTHER_OUTPUT} <= documented


class Session:
    """A shell in a small repository, in which the commands of pages run one after the other."""

    def __init__(self, repository: Repository, servers: ExitStack) -> None:
        self._repository = repository
        self._servers = servers
        self._addresses: dict[str, str] = {}
        self._outputs: dict[str, str] = {}
        self._restore_commands: dict[str, str] = {}
        folder = repository.folder
        self._photographs = shutil.copytree(folder / "data", folder.with_name("photographs"))
        given = [("two.jpg", 0, 11), ("someone.jpg", 1, 11), ("data_unknown/Zoë/1.jpg", 30, 11)]
        given += [(f"ada{number}.jpg", 29, number) for number in (1, 2, 3)]
        for name, person, number in given:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            invented_people.draw_photograph(person, number).save(folder / name)
        (folder / "vgg19.pth").touch()  # weights given by path
        # What the test itself puts beside the project's files.
        (folder / ".git" / "info" / "exclude").write_text("/*.jpg\n/server.log\n")

    def run(self, command: Command) -> None:
        """Run a command, unless it ran before, and check the first line of its output against the page."""
        if command.text in NOT_RUN:
            return
        if command.text not in self._outputs:
            self._outputs[command.text] = self._execute(command.text)
            if "git commit" in command.text:
                self._check_commit(is_result="dvc.lock" in command.text)
        if command.text not in OTHER_OUTPUT:
            check_first_line(command, self._outputs[command.text])

    def _check_commit(self, is_result: bool) -> None:
        """Assert that nothing is left to commit; of a result, also that its run says how to restore it."""
        assert self._repository.run("git", "status", "--porcelain") == ""
        if is_result:
            tags = self._repository.client.get_run(self._repository.run_id()).data.tags
            self._restore_commands[tags["celebflow.restore"]] = self._digest_model(self._repository)

    def reproduce_commits(self) -> None:
        """Assert that a fresh clone has the last result, and that each result's command restores it; no stage runs."""
        if not self._restore_commands:
            return
        folder = self._repository.folder
        clone = Repository(folder.with_name("clone"))
        self._repository.run("git", "clone", "--quiet", str(folder), str(clone.folder))
        (clone.folder / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {folder}/.dvc/cache\n")
        clone.run("dvc", "checkout", "--quiet")
        assert clone.repro() == []
        assert clone.run("git", "status", "--porcelain") == ""
        assert self._digest_model(clone) == self._digest_model(self._repository)
        for command, digest in self._restore_commands.items():
            assert "Running stage" not in self._repository.run("bash", "-c", command)
            assert self._digest_model(self._repository) == digest, command
            self._repository.run("git", "checkout", "--quiet", "--force", "-")

    @staticmethod
    def _digest_model(repository: Repository) -> str:
        return hashlib.sha256((repository.folder / "models" / "classifier.safetensors").read_bytes()).hexdigest()

    def _execute(self, text: str) -> str:
        """Run a command, or what stands for it, and return its output."""
        if text == "ls data/":  # the user has put photographs there
            self._put_photographs()
        if text in SERVERS:
            documented, path, *arguments = SERVERS[text]
            server = self._repository.serve(*shlex.split(text), *arguments, path=path)
            self._addresses[documented] = self._servers.enter_context(server)
            return (self._repository.folder / "server.log").read_text(encoding="utf-8")
        text = IN_SMALL.get(text, text)
        for documented, address in self._addresses.items():
            text = text.replace(documented, address)
        program, *arguments = shlex.split(text)
        if program == "celebflow" and arguments[0] not in IN_A_PROCESS and not set(text) & set("|<>$&"):
            return self._repository.invoke(*arguments)
        return self._repository.run("bash", "-o", "pipefail", "-c", text)

    def _put_photographs(self) -> None:
        data = self._repository.folder / "data"
        self._photographs.rename(data)
        for folder in data.iterdir():
            next(folder.iterdir()).unlink()  # so that they are not those of the result that is there


def check_first_line(command: Command, output: str) -> None:
    """Assert that the first documented line is in the output, whatever numbers, spaces and addresses are in it."""
    if not command.output or command.output[0] == "…":
        return
    documented = _mask(command.output[0])
    assert documented in [_mask(line) for line in output.splitlines()], f"{command.text} printed:\n{output}"


def _mask(line: str) -> str:
    if line.startswith("{"):  # JSON: the first key
        return line.partition(":")[0]
    words = ["#" if re.search(r"[\d/]", word) else word for word in line.split()]
    return " ".join(words)


def test_walks_hold_every_page_with_commands() -> None:
    walked = {page for pages in WALKS for page in pages}
    assert walked == {page for page in PAGES if list_commands(page)}


@pytest.mark.slow
@pytest.mark.parametrize("pages", WALKS, ids=lambda pages: name_page(pages[0]))
def test_commands_of_pages_run_in_order(pages: list[Path], repository: Repository) -> None:
    with ExitStack() as servers:
        session = Session(repository, servers)
        for page in pages:
            for command in list_commands(page):
                session.run(command)
            for block in list_blocks(page, "python"):
                repository.run("python", "-c", block)
        session.reproduce_commits()
