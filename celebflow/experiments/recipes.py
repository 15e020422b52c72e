"""Recipes: overlays in recipes/*.yaml that change some params of the base recipe, the defaults."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.params import Params, check_params, flatten, load_yaml

# What a recipe may change. The other sections are choices of a project: where photographs and weights come from, how
# photographs are split, and where runs are logged.
_SECTIONS = ("task", "extract", "train")
BASE = "base"


@dataclass(frozen=True)
class Recipe:
    """A recipe's name, its reason, and the params of the base recipe that it changes, by dotted names."""

    name: str
    reason: str
    changes: Mapping[str, object]


def list_recipes() -> list[Recipe]:
    """Return all recipes, the base recipe first; the first line of a recipe's file is its reason.

    Raises CelebflowError when a recipe is not valid.
    """
    recipes = [Recipe(BASE, "The defaults, with which params.yaml is committed.", {})]
    for name in _list_names():
        if name != BASE:
            reason = (
                _file(name).read_text(encoding="utf-8", errors="replace").partition("\n")[0].removeprefix("#").strip()
            )
            recipes.append(Recipe(name, reason, find_changes(Params(), load_recipe(name))))
    return recipes


def _file(name: str) -> Path:
    return paths.RECIPES / f"{name}.yaml"


def _list_names() -> list[str]:
    return [BASE, *sorted(file.stem for file in paths.RECIPES.glob("*.yaml"))]


def load_recipe(name: str) -> Params:
    """Return the base recipe with the changes of a recipe's file.

    Raises CelebflowError when there is no recipe of this name, when the file changes a section that recipes may not
    change, and when a key or a value is not valid.
    """
    names = _list_names()
    if name not in names:
        raise CelebflowError(
            f"There is no recipe {name!r} in {paths.RECIPES}. Choose one of {', '.join(names)}. Run from the folder "
            "that contains dvc.yaml."
        )
    if name == BASE:
        return Params()
    overlay = load_yaml(_file(name))
    if not isinstance(overlay, dict):
        raise CelebflowError(f"{_file(name)} has no sections. A recipe changes {' or '.join(_SECTIONS)}.")
    refused = [str(section) for section in overlay if section not in _SECTIONS]
    if refused:
        raise CelebflowError(
            f"{_file(name)} changes {', '.join(refused)}. A recipe may change only {' and '.join(_SECTIONS)}; set the "
            "others in params.yaml."
        )
    return check_params(_merge(Params().model_dump(mode="json"), overlay), str(_file(name)))


def _merge(base: Mapping[str, object], overlay: Mapping[str, object]) -> dict[str, object]:
    """Return nested sections with the values of the overlay in place of those of the base."""
    merged = dict(base)
    for key, value in overlay.items():
        section = merged.get(key)
        merged[key] = _merge(section, value) if isinstance(section, Mapping) and isinstance(value, Mapping) else value
    return merged


def find_changes(current: Params, wanted: Params) -> dict[str, object]:
    """Return the params of the recipes' sections that differ, with the wanted values, by dotted names."""
    before = flatten(current.model_dump(mode="json", include=set(_SECTIONS)))
    after = flatten(wanted.model_dump(mode="json", include=set(_SECTIONS)))
    return {name: value for name, value in after.items() if before[name] != value}


def apply_changes(params: Params, changes: Mapping[str, object]) -> Params:
    """Return params with changes, by dotted names, as `dvc exp run` makes them of list_arguments.

    Raises CelebflowError when a name or a value is not valid.
    """
    overlay: dict[str, object] = {}
    for name, value in changes.items():
        changed = _parse_value(value)
        for key in reversed(name.split(".")):
            changed = {key: changed}
        overlay = _merge(overlay, changed)
    return check_params(_merge(params.model_dump(mode="json"), overlay), str(paths.PARAMS))


def _parse_value(value: object) -> Any:
    """Return what _format_value writes as it is read again: a text may be a list."""
    with suppress(ValueError):
        return json.loads(value) if isinstance(value, str) else value
    return value


def list_arguments(changes: Mapping[str, object]) -> Iterator[str]:
    """Yield changes as arguments of `dvc exp run`; no argument contains a space."""
    for name, value in changes.items():
        yield f"--set-param={name}={_format_value(value)}"


def _format_value(value: object) -> str:
    """Return a value in the grammar of Hydra, which DVC parses."""
    if isinstance(value, list):
        return f"[{','.join(_format_value(each) for each in value)}]"
    return value if isinstance(value, str) else json.dumps(value, allow_nan=False)
