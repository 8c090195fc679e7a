"""Reads JSON as its author wrote it: tells what ``json`` would pass over in silence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .errors import ConfigError, Fault


def read_json(content: bytes, path: str) -> tuple[Any, list[Fault]]:
    """Return a document and its faults that ``json`` does not see: keys given twice, NaN.

    Args:
        content: UTF-8; a byte order mark is ignored.
        path: the file's name, for messages.

    Raises:
        ConfigError: it is not JSON at all.
    """
    try:
        text = content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"Not UTF-8 (line {line}, byte {error.start}); save it as UTF-8."
        raise ConfigError(path, [Fault("", problem)]) from None
    if not text.strip():
        raise ConfigError(path, [Fault("", 'The file is empty; write {"webhooks": []} at least.')])
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_NotANumber)
        return document, list(_oddities(document, ""))
    except json.JSONDecodeError as error:
        problem = f"Not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        raise ConfigError(path, [Fault("", problem)]) from None
    except RecursionError:
        raise ConfigError(path, [Fault("", "Nested too deeply to be a webhooks file.")]) from None
    except ValueError:  # an integer of more digits than Python reads
        problem = "Not usable: a number has thousands of digits."
        raise ConfigError(path, [Fault("", problem)]) from None


class _Object(dict[str, Any]):
    """A JSON object that remembers keys given twice, which ``dict`` would drop silently."""

    twice: tuple[str, ...] = ()


class _NotANumber:
    """Stands for NaN and the infinities, which are not JSON, until their place is known."""

    def __init__(self, name: str) -> None:
        self.name = name


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    if len(made) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        made.twice = tuple(name for name, count in counts.items() if count > 1)
    return made


def _oddities(value: Any, place: str) -> Iterator[Fault]:
    if isinstance(value, _Object):
        for name in value.twice:
            yield Fault(at(place, name), "Given more than once; keep one.")
        for name, item in value.items():
            yield from _oddities(item, at(place, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _oddities(item, f"{place}[{number}]")
    elif isinstance(value, _NotANumber):
        yield Fault(place, f"{value.name} is not JSON.")


def at(place: str, name: str) -> str:
    """Return the place of ``name`` in the object at ``place``."""
    name = name if name.isprintable() and 0 < len(name) <= 80 else ascii(name)[:80]
    return f"{place}.{name}" if place else name


def kind_of(value: object) -> str:
    """Say what kind of JSON value this is."""
    if value is None:
        return "null"
    if isinstance(value, _NotANumber):
        return value.name
    kinds = {bool: "a boolean", str: "a string", int: "a number", float: "a number"}
    return kinds.get(type(value), "an array" if isinstance(value, list) else "an object")
