"""The pages of the documentation, and the blocks of code and the commands in them."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests import REPOSITORY

README = REPOSITORY / "README.md"
CONTRIBUTING = REPOSITORY / "CONTRIBUTING.md"
DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
PAGES = [README, CONTRIBUTING, REPOSITORY / "CHANGELOG.md", *DOCS]


@dataclass(frozen=True)
class Command:
    """A command in a console block, and the output that the page shows below it."""

    text: str
    output: list[str]


def name_page(page: Path) -> str:
    """Return a page's path in the repository."""
    return page.relative_to(REPOSITORY).as_posix()


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
