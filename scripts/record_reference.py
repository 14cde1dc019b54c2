"""Describe the records between phases from their pydantic models, for the documentation."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

from components.shared import records

_LIMITS = {"minimum": "≥ {}", "maximum": "≤ {}", "minItems": "at least {} items", "maxItems": "at most {} items"}


def type_of(schema: Mapping[str, Any]) -> str:
    """Return a field's type from its JSON schema, in words.

    Example:
        >>> type_of({"type": "array", "items": {"type": "integer", "minimum": 0}})
        'list of (integer ≥ 0)'
    """
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(type_of(choice) for choice in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "any")
    if kind == "array":
        kind = f"list of {_grouped(schema['items'])}"
    elif kind == "object":
        keys = {"type": "string"} | schema.get("propertyNames", {})
        values = schema.get("additionalProperties", {})
        kind = f"object: {_grouped(keys)} → {_grouped(values)}"
    limits = [text.format(f"{schema[key]:,}") for key, text in _LIMITS.items() if key in schema]
    if "pattern" in schema:
        limits.append(f"`{schema['pattern']}`".replace("|", "\\|"))
    return " ".join((kind, ", ".join(limits))).strip()


def _grouped(schema: Mapping[str, Any]) -> str:
    text = type_of(schema)
    return f"({text})" if " " in text and "](" not in text else text


def _documentation(model: type[records.Record]) -> tuple[str, dict[str, str]]:
    """Return the summary of a model, and the descriptions of its fields; those of inherited ones are its bases'."""
    summary, _, attributes = (inspect.getdoc(model) or "").partition("\n\nAttributes:\n")
    fields: dict[str, str] = {}
    for base in reversed(model.__bases__):
        if issubclass(base, records.Record):
            fields |= _documentation(base)[1]
    for names, text in re.findall(r"^ {4}([a-z0-9_, ]+): ((?:.+\n?)(?: {8}.+\n?)*)", attributes, re.MULTILINE):
        fields |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return " ".join(summary.split()), fields


def models() -> list[type[records.Record]]:
    """Return the models in the order of their module."""
    found = [value for value in vars(records).values() if inspect.isclass(value) and issubclass(value, records.Record)]
    return [model for model in found if model is not records.Record and not model.__name__.startswith("_")]


def section(model: type[records.Record]) -> str:
    """Return the heading, summary and table of fields of a model, as Markdown."""
    summary, descriptions = _documentation(model)
    schema = model.model_json_schema()
    rows = [
        f"| `{name}`{'' if name in schema.get('required', ()) else ' (optional)'} | {type_of(field)} "
        f"| {descriptions.get(name, '')} |"
        for name, field in schema["properties"].items()
    ]
    return f"## {model.__name__}\n\n{summary}\n\n| field | type | |\n|---|---|---|\n" + "\n".join(rows) + "\n"
