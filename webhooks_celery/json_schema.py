"""The JSON Schema of the webhooks file, for editors; generated, never kept by hand.

``python -m webhooks_celery.json_schema`` writes the copy that ships in the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from marshmallow import Schema, fields, missing, validate

from .schema import TOKEN, FileSchema, Headers

#: The generated copy, for programs that should not have to load Marshmallow.
FILE = Path(__file__).with_name("webhooks.schema.json")


def generate() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) that the Marshmallow schema amounts to."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "webhooks file of webhooks_celery",
        **_object(FileSchema()),
    }


def _object(schema: Schema) -> dict[str, Any]:
    named = [(field.data_key or name, field) for name, field in schema.fields.items()]
    made = {
        "type": "object",
        "properties": {name: _field(field) for name, field in named},
        "additionalProperties": False,
    }
    required = [name for name, field in named if field.required]
    return {**made, "required": required} if required else made


def _field(field: fields.Field[Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if isinstance(field, fields.Nested):
        made = _object(field.schema)
    elif isinstance(field, fields.List):
        made = {"type": "array", "items": _field(field.inner)}
    elif isinstance(field, Headers):
        made = {
            "type": "object",
            "propertyNames": {"pattern": f"^{TOKEN}$"},
            "additionalProperties": {"type": "string"},
        }
    else:
        made = {"type": _type(field)}
    for rule in field.validators:
        if isinstance(rule, validate.Range):
            limits = {"minimum": rule.min, "maximum": rule.max}
            made.update({name: limit for name, limit in limits.items() if limit is not None})
        elif isinstance(rule, validate.Length) and rule.min is not None:
            made["minItems"] = rule.min
    for name in ("description", "pattern", "minLength"):
        if name in field.metadata:
            made[name] = field.metadata[name]
    default = field.load_default() if callable(field.load_default) else field.load_default
    if default is not missing and default is not None:
        made["default"] = default
    return made


def _type(field: fields.Field[Any]) -> str:
    for kind, name in (
        (fields.Boolean, "boolean"),
        (fields.Integer, "integer"),
        (fields.Float, "number"),
    ):
        if isinstance(field, kind):
            return name
    return "string"


if __name__ == "__main__":
    FILE.write_text(json.dumps(generate(), indent=2) + "\n", encoding="utf-8")
