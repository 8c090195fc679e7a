"""Puts ``${NAME}`` from the environment into a webhooks file that was read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import Fault
from .json_reader import at

_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def expand(document: dict[str, Any], environ: Mapping[str, str]) -> list[Fault]:
    """Replace ``${NAME}`` in URLs and header values in place; return what could not be."""
    faults: list[Fault] = []

    def expanded(text: str, place: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name is None:  # $${
                return "${"
            if not match[0].endswith("}") or not _VARIABLE_NAME.fullmatch(name):
                faults.append(
                    Fault(place, "Not a variable after ${: write ${NAME}, or $${ for a plain ${.")
                )
            elif name not in environ:
                faults.append(Fault(place, f"The environment variable {name} is not set."))
            else:
                return environ[name]
            return "x"  # keeps the rest of the text valid: one fault is enough

        return _VARIABLE.sub(value, text)

    hooks = document.get("webhooks")
    for number, hook in enumerate(hooks if isinstance(hooks, list) else []):
        if not isinstance(hook, dict):
            continue
        place = f"webhooks[{number}]"
        if isinstance(hook.get("url"), str):
            hook["url"] = expanded(hook["url"], f"{place}.url")
        headers = hook.get("headers")
        if isinstance(headers, dict):
            for name, text in headers.items():
                if isinstance(text, str):
                    headers[name] = expanded(text, at(f"{place}.headers", name))
    return faults
