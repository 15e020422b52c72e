"""Recipes: sets of params that stand in recipes/*.yaml, to be tried beside those of params.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass

from celebflow import paths
from celebflow.errors import CelebflowError
from celebflow.params import Params, flatten, load_params

# What a recipe is about. Where the photographs and the weights come from, how photographs are split, and where runs
# are logged is the repository's own.
_SECTIONS = ("extract", "train")
BASE = "base"


@dataclass(frozen=True)
class Recipe:
    """A recipe's name and what it changes, by dotted names."""

    name: str
    changes: Mapping[str, object]


def list_recipes() -> list[Recipe]:
    """Return the recipes of the repository, the base recipe first, each with what it changes of that."""
    base = load_recipe(BASE)
    names = sorted(_list_names(), key=lambda name: name != BASE)
    return [Recipe(name, find_changes(base, load_recipe(name))) for name in names]


def _list_names() -> list[str]:
    return sorted(file.stem for file in paths.RECIPES.glob("*.yaml"))


def load_recipe(name: str) -> Params:
    """Read a recipe; raise CelebflowError, naming those that there are, when there is none of this name."""
    names = _list_names()
    if name not in names:
        raise CelebflowError(
            f"There is no recipe {name!r} in {paths.RECIPES}, but {', '.join(names) or 'none'}. Run from the folder "
            "that dvc.yaml stands in."
        )
    return load_params(paths.RECIPES / f"{name}.yaml")


def find_changes(current: Params, wanted: Params) -> dict[str, object]:
    """Return what of the wanted params' features and training differs from the current ones, by dotted names."""
    before, after = (flatten(params.model_dump(mode="json", include=set(_SECTIONS))) for params in (current, wanted))
    return {name: value for name, value in after.items() if before[name] != value}


def list_arguments(changes: Mapping[str, object]) -> list[str]:
    """Return changes as arguments of `dvc exp run`, without any space inside of one."""
    return [f"--set-param={name}={_write(value)}" for name, value in changes.items()]


def _write(value: object) -> str:
    """Write a value in the grammar of Hydra, which DVC reads."""
    if isinstance(value, list):
        return f"[{','.join(_write(each) for each in value)}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)
