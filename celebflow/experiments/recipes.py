"""Recipes: what recipes/*.yaml changes of the base recipe, to be tried beside params.yaml."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.params import Params, check_params, flatten, load_yaml

# Sections that a recipe may change. Where the photographs and the weights come from, how photographs are split, and
# where runs are logged belongs to the project.
_SECTIONS = ("extract", "train")
BASE = "base"


@dataclass(frozen=True)
class Recipe:
    """A recipe's name, why it is there, and what it changes of the base recipe, by dotted names."""

    name: str
    reason: str
    changes: Mapping[str, object]


def list_recipes() -> list[Recipe]:
    """Return the recipes, the base recipe first, each with what it changes of that."""
    recipes = [Recipe(BASE, "What params.yaml is committed with.", {})]
    for name in _list_names():
        if name != BASE:
            reason = _file(name).read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
            recipes.append(Recipe(name, reason, find_changes(Params(), load_recipe(name))))
    return recipes


def _file(name: str) -> Path:
    return paths.RECIPES / f"{name}.yaml"


def _list_names() -> list[str]:
    return [BASE, *sorted(file.stem for file in paths.RECIPES.glob("*.yaml"))]


def load_recipe(name: str) -> Params:
    """Return the base recipe with what a recipe's file changes of it.

    Raises CelebflowError when there is no recipe of this name, naming those that there are, and when the file changes
    a section that is not a recipe's, or holds a key or value that is not valid.
    """
    names = _list_names()
    if name not in names:
        raise CelebflowError(
            f"There is no recipe {name!r} in {paths.RECIPES}, but {', '.join(names)}. Run from the folder that contains "
            "dvc.yaml."
        )
    if name == BASE:
        return Params()
    overlay = load_yaml(_file(name))
    if not isinstance(overlay, dict):
        raise CelebflowError(f"{_file(name)} has no sections. A recipe changes {' or '.join(_SECTIONS)}.")
    foreign = [str(section) for section in overlay if section not in _SECTIONS]
    if foreign:
        raise CelebflowError(
            f"{_file(name)} changes {', '.join(foreign)}. A recipe changes only {' and '.join(_SECTIONS)}; set the "
            "others in params.yaml."
        )
    return check_params(_lay_over(Params().model_dump(mode="json"), overlay), str(_file(name)))


def _lay_over(base: Mapping[str, object], overlay: Mapping[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        merged[key] = _lay_over(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def find_changes(current: Params, wanted: Params) -> dict[str, object]:
    """Return what of the wanted params' features and training differs from the current ones, by dotted names."""
    before, after = (flatten(params.model_dump(mode="json", include=set(_SECTIONS))) for params in (current, wanted))
    return {name: value for name, value in after.items() if before[name] != value}


def list_arguments(changes: Mapping[str, object]) -> Iterator[str]:
    """Yield changes as arguments of `dvc exp run`, without any space inside one."""
    for name, value in changes.items():
        yield f"--set-param={name}={_write(value)}"


def _write(value: object) -> str:
    """Write a value in the grammar of Hydra, which DVC reads."""
    if isinstance(value, list):
        return f"[{','.join(_write(each) for each in value)}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)
