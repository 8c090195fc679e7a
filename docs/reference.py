"""Writes the field table of ``docs/configuration.md`` from the schema.

``python docs/reference.py`` writes it, ``python docs/reference.py --check`` exits with 1 if the
table is not up to date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from webhooks_celery.json_schema import generate
from webhooks_celery.schema import HookSchema

DOCUMENT = Path(__file__).with_name("configuration.md")
BEGIN, END = "<!-- fields: begin -->\n", "<!-- fields: end -->\n"


def table() -> str:
    """Return the field table as Markdown."""
    hook = generate()["properties"]["webhooks"]["items"]
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for name, field in hook["properties"].items():
        if name in hook["required"]:
            default = "required"
        else:
            text = HookSchema().fields[name].metadata.get("default_text")
            default = text or f"`{json.dumps(field['default'])}`"
        limits = ""
        if "minimum" in field:
            limits = f" {field['minimum']}–{field.get('maximum', '…')}"
        rows.append(f"| `{name}` | {field['type']}{limits} | {default} | {field['description']} |")
    return "\n".join(rows) + "\n"


def main(check: bool) -> int:
    """Bring the document up to date, or say whether it is."""
    old = DOCUMENT.read_text(encoding="utf-8")
    head, _, rest = old.partition(BEGIN)
    tail = rest.partition(END)[2]
    new = head + BEGIN + table() + END + tail
    if check:
        return int(new != old)
    DOCUMENT.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
