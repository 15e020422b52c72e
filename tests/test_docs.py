"""The documentation is true: links, trees, generated pages, and the commands, which run in a small repository."""

import json
import re
import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from celebflow.data import invented_people
from celebflow.params import Params, flatten
from docs import build
from tests import REPOSITORY
from tests.repository import Repository

README = REPOSITORY / "README.md"
CONTRIBUTING = REPOSITORY / "CONTRIBUTING.md"
DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
PAGES = [README, CONTRIBUTING, REPOSITORY / "CHANGELOG.md", *DOCS]
# Readers follow the pages of a walk one after the other in one repository.
WALKS = [
    [README, *(REPOSITORY / "docs" / f"{name}.md" for name in ("data", "results", "experiments"))],
    [REPOSITORY / "docs" / "prediction.md"],
]
MAX_README_LINES = 200
BASE_PARAMS = flatten(Params().model_dump(mode="json"))

# Commands that the test does not run, and why.
NOT_RUN = {
    "make demo": "it draws 930 photographs; tests/data and tests/pipeline run the same commands, the second in small",
    "make test": "it would run this test",
    "make install && . .venv/bin/activate": "it installs packages from a registry",
}
# Commands that run in small: fewer trials, and images of the size that the small repository has.
IN_SMALL = {
    "dvc exp run $(celebflow recipe best)": "dvc exp run $(celebflow recipe best) -S extract.image_size_px=64",
    "celebflow search --recipe fast train.lda_shrinkage=0.02..0.8 train.preprocessing.pca_components=100,300,600 "
    "--trials 12 --name shrinkage": "celebflow search --recipe fast extract.image_size_px=64 "
    "train.lda_shrinkage=0.02..0.8 train.preprocessing.pca_components=100,300,600 --trials 1 --name shrinkage",
    "dvc exp apply shrinkage-7": "dvc exp apply shrinkage-1",
}
# Commands that serve until the walk ends: the address in the documentation, and a path that answers once they are up.
# The test starts them on a free port, and puts it in the place of the documented address.
SERVERS = {
    "celebflow serve": ("http://127.0.0.1:8000", "/healthz"),
    "mlflow ui": ("http://127.0.0.1:5000", "/health"),
    "mlflow models serve -m models:/celebflow@champion --env-manager local --port 5001": (
        "http://127.0.0.1:5001",
        "/ping",
    ),
}
# Commands whose first line of output is another in the small repository, and why.
OTHER_OUTPUT = {
    "ls data/": "the people are others",
    "celebflow register": "the best run is another",
    "celebflow predict two.jpg": "faces have boxes only where the model detects them",
}


@dataclass(frozen=True)
class Command:
    """A command in a console block, and the output that the page shows below it."""

    text: str
    output: list[str]


def list_blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in this language; "" for those without one."""
    # Every other fence ends a block.
    parts = re.split(r"^```(.*)\n", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return [content for name, content in zip(parts[::4], parts[1::4], strict=True) if name == language]


def list_commands(page: Path) -> list[Command]:
    """Return the commands of a page's console blocks, without comments and with continued lines joined."""
    commands: list[Command] = []
    for block in list_blocks(page, "console"):
        lines = iter(block.splitlines())
        for line in lines:
            if not line.startswith("$ "):
                commands[-1].output.append(line)
                continue
            text = line.removeprefix("$ ")
            while text.endswith("\\"):
                text = text.removesuffix("\\") + next(lines).strip()
            commands.append(Command(re.sub(r"\s+# .*", "", text), []))
    return commands


def list_tree(page: Path) -> list[str]:
    """Return the paths in the annotated tree of a page, with a slash at the end of each folder."""
    (block,) = list_blocks(page, "")
    paths, parents = [], [""]
    for line in block.splitlines():
        indentation, name = re.findall(r"^( *)(\S+)", line)[0]
        path = parents[len(indentation) // 2] + name
        paths.append(path)
        parents[len(indentation) // 2 + 1 :] = [path]
    return paths


def list_anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings have on GitHub."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def list_links(page: Path) -> list[str]:
    """Return the targets of the links and images of a page that are not on the web."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [target for target in targets if not target.startswith(("http://", "https://"))]


def _name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def test_generated_files_are_current() -> None:
    remedy = "is stale: run `make docs`"
    assert build.SCHEMA_FILE.read_text(encoding="utf-8") == build.render_schema(), f"params.schema.json {remedy}"
    page = build.TABLE_FILE.read_text(encoding="utf-8")
    assert page == build.render_page(page), f"docs/params.md {remedy}"


def test_params_page_describes_every_key() -> None:
    described = re.findall(
        r"^\| `([\w.]+)` \|.*\| [^|]+ \|$", build.TABLE_FILE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert described == list(BASE_PARAMS)


def test_params_file_names_its_schema_and_follows_it() -> None:
    text = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"# yaml-language-server: $schema={build.SCHEMA_FILE.name}\n")
    _load_schema().validate(yaml.safe_load(text))


def _load_schema() -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(json.loads(build.SCHEMA_FILE.read_text(encoding="utf-8")))


def _nest(flat: Mapping[str, object]) -> dict[str, Any]:
    """Return params with dotted names as sections."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, key = name.split(".")
        section = nested
        for each in sections:
            section = section.setdefault(each, {})
        section[key] = value
    return nested


@pytest.mark.parametrize("key", BASE_PARAMS)
def test_schema_requires_every_key(key: str) -> None:
    params = {name: value for name, value in BASE_PARAMS.items() if name != key}
    assert not _load_schema().is_valid(_nest(params))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.momentum", 0.9),
        ("extract.face.padding", 1),
        ("augment.rotate", True),
        ("train.epochs", "ten"),
        ("train.dropout", 1.0),
        ("compute.device", "gpu"),
        ("extract.views", ["original", "miror"]),
    ],
)
def test_schema_refuses_unknown_keys_and_wrong_values(key: str, value: object) -> None:
    schema = _load_schema()
    assert schema.is_valid(_nest(BASE_PARAMS))
    assert not schema.is_valid(_nest(BASE_PARAMS | {key: value}))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in list_links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{_name(page)} links to {link}, which does not exist"
        assert not anchor or anchor in list_anchors(target), f"{_name(page)} links to {link}, which has no such heading"


def test_readme_and_docs_link_to_one_another() -> None:
    linked = {(README.parent / link.partition("#")[0]).resolve() for link in list_links(README)}
    assert {*DOCS, CONTRIBUTING, REPOSITORY / "CHANGELOG.md"} <= linked
    for page in DOCS:
        assert "../README.md" in list_links(page), f"{_name(page)} does not link back to the README"


def test_every_picture_is_shown() -> None:
    linked = {(page.parent / link).resolve() for page in PAGES for link in list_links(page)}
    pictures = {path for pattern in ("*.png", "*.jpg") for path in (REPOSITORY / "docs").glob(pattern)}
    assert pictures <= linked


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("page", [README, CONTRIBUTING], ids=_name)
def test_tree_names_what_exists(page: Path) -> None:
    for path in list_tree(page):
        assert (REPOSITORY / path).exists(), f"the tree in {_name(page)} has {path}, which does not exist"
        assert (REPOSITORY / path).is_dir() == path.endswith("/"), f"{path} is of the other kind"


def test_readme_tree_has_every_folder() -> None:
    folders = {f"celebflow/{path.parent.name}/" for path in (REPOSITORY / "celebflow").glob("*/__init__.py")}
    assert folders <= set(list_tree(README))


def test_contributing_tree_has_every_module() -> None:
    modules = set()
    for folder in ("celebflow", "stages", "benchmarks"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            if path.name != "__init__.py":
                modules.add(_name(path))
    assert modules - set(list_tree(CONTRIBUTING)) == set()


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
        folder = repository.folder
        for name, person in (("two.jpg", 0), ("someone.jpg", 1), ("data_unknown/Zoë/1.jpg", 30)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            invented_people.draw_photograph(person, 11).save(folder / name)

    def run(self, command: Command) -> None:
        """Run a command, unless it ran before, and check the first line of its output against the page."""
        if command.text in NOT_RUN:
            return
        if command.text not in self._outputs:
            self._outputs[command.text] = self._execute(command.text)
        if command.text not in OTHER_OUTPUT:
            check_first_line(command, self._outputs[command.text])

    def _execute(self, text: str) -> str:
        """Run a command, or what stands for it, and return its output."""
        if text == "ls data/":  # the user has put photographs there
            self._put_photographs()
        if text in SERVERS:
            documented, path = SERVERS[text]
            server = self._repository.serve(*shlex.split(text), path=path)
            self._addresses[documented] = self._servers.enter_context(server)
            return (self._repository.folder / "server.log").read_text(encoding="utf-8")
        text = IN_SMALL.get(text, text)
        for documented, address in self._addresses.items():
            text = text.replace(documented, address)
        return self._repository.run("bash", "-o", "pipefail", "-c", text)

    def _put_photographs(self) -> None:
        for person, name in enumerate(invented_people.PEOPLE[:6]):
            (self._repository.folder / "data" / name).mkdir(parents=True)
            for number in range(9):
                file = self._repository.folder / "data" / name / f"{number}.png"
                invented_people.draw_photograph(person, number).save(file)


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
@pytest.mark.parametrize("pages", WALKS, ids=lambda pages: _name(pages[0]))
def test_commands_of_pages_run_in_order(pages: list[Path], repository: Repository) -> None:
    with ExitStack() as servers:
        session = Session(repository, servers)
        for page in pages:
            for command in list_commands(page):
                session.run(command)
            for block in list_blocks(page, "python"):
                repository.run("python", "-c", block)
