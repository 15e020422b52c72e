"""What a module imports, read from the code: so that no list of modules or libraries has to be kept by hand."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


def find_reached(file: Path, root: Path = PACKAGE.parent, *, directly: bool = False) -> set[Path]:
    """Return the modules of celebflow that a Python file imports, directly or through others, without itself.

    They are files below `root`. Imports inside functions count.
    """
    if directly:
        return set(_find_modules(file, root)) - {file}
    reached: set[Path] = set()
    waiting = [file]
    while waiting:
        found = {module for module in _find_modules(waiting.pop(), root) if module not in reached}
        reached |= found
        waiting += found
    return reached - {file}


def find_libraries(files: set[Path]) -> set[str]:
    """Return the names under which Python files import libraries as they are loaded, the standard library left out.

    Imports inside functions do not count: they are of what not everybody needs.
    """
    names: set[str] = set()
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names |= {name.split(".")[0] for name in _list_names(node)}
    return names - sys.stdlib_module_names - {"celebflow", "stages"}


def _find_modules(file: Path, root: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        for name in _list_names(node):
            if not name.startswith("celebflow"):
                continue
            module = (root / Path(*name.split("."))).with_suffix(".py")
            if module.is_file():
                yield module


def _list_names(node: ast.AST) -> list[str]:
    """Return what an import statement may load: a module, and each name in it, which may be a module, too."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []
