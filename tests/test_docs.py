"""The documentation is true: links, trees, and the generated pages."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from celebflow.params import Params, flatten
from docs import build
from tests import REPOSITORY
from tests.documentation import CONTRIBUTING, DOCS, PAGES, README, list_blocks, name_page

MAX_README_LINES = 200
BASE_PARAMS = flatten(Params().model_dump(mode="json"))


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


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_links_lead_somewhere(page: Path) -> None:
    for link in list_links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{name_page(page)} links to {link}, which does not exist"
        assert not anchor or anchor in list_anchors(target), (
            f"{name_page(page)} links to {link}, which has no such heading"
        )


def test_readme_and_docs_link_to_one_another() -> None:
    linked = {(README.parent / link.partition("#")[0]).resolve() for link in list_links(README)}
    assert {*DOCS, CONTRIBUTING, REPOSITORY / "CHANGELOG.md"} <= linked
    for page in DOCS:
        assert "../README.md" in list_links(page), f"{name_page(page)} does not link back to the README"


def test_every_picture_is_shown() -> None:
    linked = {(page.parent / link).resolve() for page in PAGES for link in list_links(page)}
    pictures = {path for pattern in ("*.png", "*.jpg") for path in (REPOSITORY / "docs").glob(pattern)}
    assert pictures <= linked


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("page", [README, CONTRIBUTING], ids=name_page)
def test_tree_names_what_exists(page: Path) -> None:
    for path in list_tree(page):
        assert (REPOSITORY / path).exists(), f"the tree in {name_page(page)} has {path}, which does not exist"
        assert (REPOSITORY / path).is_dir() == path.endswith("/"), f"{path} is of the other kind"


def test_readme_tree_has_every_folder() -> None:
    folders = {f"celebflow/{path.parent.name}/" for path in (REPOSITORY / "celebflow").glob("*/__init__.py")}
    assert folders <= set(list_tree(README))


def test_contributing_tree_has_every_module() -> None:
    modules = set()
    for folder in ("celebflow", "stages", "benchmarks"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            if path.name != "__init__.py":
                modules.add(name_page(path))
    assert modules - set(list_tree(CONTRIBUTING)) == set()
