"""Templates and values → HTML pages, with a policy by which a page loads nothing but its own content."""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_SHARED = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Page:
    """The template, style sheets and scripts of a page: files in `folder`, or else in the folder of shared ones."""

    template: str
    styles: tuple[str, ...]
    scripts: tuple[str, ...]
    folder: Path = _SHARED


def render(page: Page, allowed: str, filters: Mapping[str, Callable[..., str]], **values: object) -> tuple[str, str]:
    """Render a page with its style sheets and scripts inlined; return the HTML and its Content-Security-Policy.

    Every value is escaped. The policy allows the style sheet and the script by their hashes, and what the directives
    in `allowed` add.
    """
    loader = FileSystemLoader([page.folder, _SHARED])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= filters
    style = "".join(loader.get_source(environment, name)[0] for name in page.styles)
    script = "".join(loader.get_source(environment, name)[0] for name in page.scripts)
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; "
        f"form-action 'none'; {allowed}"
    )
    template = environment.get_template(page.template)
    return template.render(style=style, script=script, policy=policy, **values), policy


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
