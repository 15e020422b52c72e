"""The modules and libraries that a Python file imports, read from its code, so that nobody maintains lists of them."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


def find_reached(file: Path, root: Path = PACKAGE.parent, *, directly: bool = False) -> set[Path]:
    """Return the modules of celebflow that a Python file imports, as files below `root`.

    They include what these modules import in turn, unless `directly` is true, and imports inside functions. The file
    itself is left out.
    """
    reached: set[Path] = set()
    waiting = [file]
    while waiting:
        found = set(_find_modules(waiting.pop(), root)) - reached
        reached |= found
        if not directly:
            waiting += found
    return reached - {file}


def find_libraries(files: set[Path]) -> set[str]:
    """Return the names of the libraries that Python files import at module level, without the standard library.

    Imports inside functions do not count, because they import what only some uses need.
    """
    names: set[str] = set()
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names |= {name.split(".")[0] for name in _list_names(node)}
    return names - sys.stdlib_module_names - {"celebflow", "stages"}


def _find_modules(file: Path, root: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        for name in _list_names(node):
            module = (root / Path(*name.split("."))).with_suffix(".py")
            if name.startswith("celebflow") and module.is_file():
                yield module


def _list_names(node: ast.AST) -> list[str]:
    """Return the modules that an import statement may load; an imported name may be a module as well."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []
