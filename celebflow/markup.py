"""What HTML pages share: templates, and a policy by which a page loads only what stands in it."""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Path(__file__).parent / "templates"


def render(page: str, allowed: str, filters: Mapping[str, Callable[..., str]], **values: object) -> tuple[str, str]:
    """Render the template of a page, with its style sheet and script in it; return HTML and policy.

    Every value is escaped. The Content-Security-Policy allows the style sheet and the script, by their hashes, and
    what the directives in `allowed` say.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    style, script = _read("base.css") + _read(f"{page}.css"), _read(f"{page}.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; "
        f"form-action 'none'; {allowed}"
    )
    template = environment.get_template(f"{page}.html.jinja")
    return template.render(style=style, script=script, policy=policy, **values), policy


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
