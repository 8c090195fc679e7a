"""Turn what an application passes as payload into JSON text, once, when the event is emitted.

The text then travels as a plain string: a broker's serializer that gives a meaning of its own to
some objects (kombu tags dates, UUIDs and bytes) can neither change nor reject it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from .errors import InvalidEvent


def encode_payload(payload: object) -> str:
    """Return ``payload`` as compact JSON text.

    Dates and times become ISO 8601, UUID and Decimal strings, an Enum its value, a dataclass or
    any mapping an object, tuples and sets arrays. Integers keep every digit.

    Raises:
        InvalidEvent: for NaN and infinities, bytes, objects of other types, cycles; names the
            place, such as ``payload.user.avatar``.
    """
    try:
        text = _dumps(payload)
    except (TypeError, ValueError, RecursionError):
        # Rare: something that json's encoder refuses. Write it step by step, which either knows a
        # way or says where the fault is.
        try:
            text = _write(payload, "payload", ())
        except RecursionError:
            raise InvalidEvent("payload", "is nested too deeply.") from None
    # A lone surrogate has no UTF-8 form; as in JavaScript it is written as \udXXX.
    return text.encode("utf-8", "backslashreplace").decode()


def _default(value: object) -> object:
    """Say how json is to write a ``value`` that it does not know."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Decimal) and value.is_finite():
        return str(value)
    if isinstance(value, UUID) or _is_lazy_string(value):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return _ordered(value)
    raise TypeError


_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default
)
_dumps = _encoder.encode


def _ordered(items: Iterable[Any]) -> list[Any]:
    """A set as a list that is the same on every run, where its members can be compared."""
    try:
        return sorted(items)
    except (TypeError, ArithmeticError):  # a Decimal NaN raises the latter
        return list(items)


def _is_lazy_string(value: object) -> bool:
    """Whether ``value`` is one of Django's lazy strings; never imports Django."""
    functional = sys.modules.get("django.utils.functional")
    return functional is not None and isinstance(value, functional.Promise)


def _write(value: Any, place: str, parents: tuple[int, ...]) -> str:
    """Return ``value`` as JSON text, or raise with its ``place``."""
    if isinstance(value, Enum):
        return _write(value.value, place, parents)
    kind = type(value)  # isinstance() would take a lazy proxy for a str, which json does not
    if value is None or issubclass(kind, (bool, str)):
        return _dumps(value)
    if issubclass(kind, int):
        return format(Decimal(value), "f")  # str() refuses integers of more than 4,300 digits
    if issubclass(kind, float) and math.isfinite(value):
        return _dumps(value)
    if issubclass(kind, float) or (issubclass(kind, Decimal) and not value.is_finite()):
        raise InvalidEvent(place, f"{value} has no JSON form; send null or a string instead.")
    if id(value) in parents:
        raise InvalidEvent(place, "contains itself.")
    parents = (*parents, id(value))
    if isinstance(value, Mapping):
        named = [(_key(key, place), item) for key, item in value.items()]
        items = [
            f"{_dumps(name)}:{_write(item, _at(place, name), parents)}" for name, item in named
        ]
        return "{" + ",".join(items) + "}"
    if isinstance(value, (list, tuple)):
        members = [_write(item, f"{place}[{n}]", parents) for n, item in enumerate(value)]
        return "[" + ",".join(members) + "]"
    try:
        known = _default(value)
    except TypeError:
        raise InvalidEvent(place, _advice(value)) from None
    return _write(known, place, parents)


def _key(key: Any, place: str) -> str:
    if isinstance(key, Enum):
        return _key(key.value, place)
    kind = type(key)
    if issubclass(kind, str):
        return key
    if key is None or issubclass(kind, (bool, int, float)):
        return _write(key, place, ())
    with suppress(TypeError):
        name = _default(key)
        if isinstance(name, str):
            return name
    raise InvalidEvent(place, f"a key of type {kind.__name__} has no JSON form.")


def _at(place: str, name: str) -> str:
    return f"{place}.{name if name.isprintable() else ascii(name)}"


def _advice(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytes have no JSON form; send text, such as base64, instead."
    kind = type(value)
    return (
        f"an object of type {kind.__module__}.{kind.__qualname__} has no JSON form; pass the "
        "fields that the receiver needs, as a dict."
    )
