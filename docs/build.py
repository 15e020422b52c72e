"""Write docs/params.md and params.schema.json from the typed sections of celebflow/params.py; `make docs` runs it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from celebflow.params import Params

REPOSITORY = Path(__file__).resolve().parent.parent
SCHEMA_FILE = REPOSITORY / "params.schema.json"
TABLE_FILE = REPOSITORY / "docs" / "params.md"
_MARKS = "<!-- params -->", "<!-- end of params -->"
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def main() -> None:
    """Write both files."""
    SCHEMA_FILE.write_text(render_schema(), encoding="utf-8")
    TABLE_FILE.write_text(render_page(TABLE_FILE.read_text(encoding="utf-8")), encoding="utf-8")


def render_schema() -> str:
    """Return the JSON schema of params.yaml, for editors: every key is required, and no other is allowed."""
    return json.dumps(_make_schema(), indent=2, ensure_ascii=False) + "\n"


def render_page(page: str) -> str:
    """Return docs/params.md with the tables between its marks written anew."""
    before, rest = page.split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    return f"{before}{_MARKS[0]}\n\n{_render_tables()}\n\n{_MARKS[1]}{after}"


def _make_schema() -> dict[str, Any]:
    schema = Params.model_json_schema()
    definitions = schema.pop("$defs")
    resolved = _resolve(schema, definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **resolved, "title": "params.yaml"}


def _resolve(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Put each section in its place, require all of its keys, and drop the titles that pydantic makes of names.

    The lines of a description become one.
    """
    if "$ref" in schema:
        return _resolve(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    resolved = {key: value for key, value in schema.items() if key not in ("title", "properties")}
    if "description" in schema:
        resolved["description"] = " ".join(schema["description"].split())
    if "properties" in schema:
        resolved["required"] = list(schema["properties"])
        resolved["properties"] = {name: _resolve(child, definitions) for name, child in schema["properties"].items()}
    return resolved


def _render_tables() -> str:
    """Return a heading, a description and a table for each section."""
    parts = []
    for name, section in _make_schema()["properties"].items():
        lines = ["| key | type | values | default | meaning |", "|---|---|---|---|---|"]
        keys = _list_keys(section, f"{name}.") if "properties" in section else [(name, section)]
        for key, schema in keys:
            default = schema["default"]
            cells = (
                f"`{key}`",
                _describe_type(schema),
                _describe_values(schema),
                f"`{default if isinstance(default, str) else json.dumps(default)}`",
                schema["description"],
            )
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        # A key at the top is described in its own row.
        description = [section["description"]] if "properties" in section else []
        parts += [f"## {name}", *description, "\n".join(lines)]
    return "\n\n".join(parts)


def _list_keys(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each key of a section and of those in it, with its dotted name and its schema."""
    for name, schema in section["properties"].items():
        if "properties" in schema:
            yield from _list_keys(schema, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", schema


def _describe_type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_describe_type(choice) for choice in schema["anyOf"])
    if schema["type"] == "array":
        return f"list of {_describe_type(schema['items'])}"
    return str(schema["type"])


def _describe_values(schema: Mapping[str, Any]) -> str:
    """Return the values that a key can have beyond its type: a choice, a range or a pattern."""
    if "anyOf" in schema:
        described = [_describe_values(choice) for choice in schema["anyOf"]]
        return ", ".join(values for values in described if values)
    if schema["type"] == "array":
        return _describe_values(schema["items"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "pattern" in schema:
        return f"`{schema['pattern']}`"
    return ", ".join(f"{sign} {schema[bound]}" for bound, sign in _BOUNDS.items() if bound in schema)


if __name__ == "__main__":
    main()
