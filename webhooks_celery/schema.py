"""The webhooks file's schema: JSON text in, hooks or every fault at once out.

The field descriptions below are the only ones: the JSON Schema for editors and the reference in
``docs/configuration.md`` are made from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import urlsplit

import idna
from marshmallow import Schema, ValidationError, fields, validate

from .errors import ConfigError, Fault
from .json_reader import at, kind_of, read_json
from .matching import Hooks
from .model import Hook, event_name_fault
from .variables import expand

#: Longest time in the file, in milliseconds: the largest delay of a JavaScript timer (24.8 days).
MAX_MS = 2**31 - 1

METHODS = ("POST", "PUT", "PATCH")
_NOT_AN_OBJECT = "Must be an object."
TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110, 5.6.2
#: Headers that describe the message itself; another value than the real one breaks the request.
_FRAMING = ("content-length", "transfer-encoding")


class Integer(fields.Integer):
    """An integer as JSON Schema understands it: 3 and 3.0, but neither "3" nor true."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.make_error("invalid")
        return super()._deserialize(value, *args, **kwargs)


class Number(fields.Float):
    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.make_error("invalid")
        return super()._deserialize(value, *args, **kwargs)


class Boolean(fields.Boolean):
    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value


class Headers(fields.Field[dict[str, str]]):
    """Names to values; a fault is reported under the header's own name."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> dict[str, str]:
        if not isinstance(value, dict):
            raise ValidationError("Must be an object of header names and values.")
        faults: dict[str, list[str]] = {}
        seen: dict[str, str] = {}
        for name, text in value.items():
            faults.setdefault(name, []).extend(_header_faults(name, text))
            twin = seen.setdefault(name.lower(), name)
            if twin != name:
                faults[name].append(f"The same name as {twin}: case does not matter. Remove one.")
        faults = {name: found for name, found in faults.items() if found}
        if faults:
            raise ValidationError(faults)
        return dict(value)


def _header_faults(name: str, value: object) -> Iterator[str]:
    if not re.fullmatch(TOKEN, name):
        yield "Not a header name: use letters, digits and hyphens (RFC 9110)."
    elif name.lower() in _FRAMING:
        yield "Is worked out from the body; remove it."
    if not isinstance(value, str):
        yield f"Must be a string, not {kind_of(value)}."
    elif re.search(r"[\r\n\0]", value):
        yield "Must not contain a line break or NUL; is there one at the end of a variable?"
    elif any((ord(char) < 32 and char != "\t") or ord(char) == 127 for char in value):
        yield "Must not contain control characters."
    elif any(ord(char) > 255 for char in value):
        yield "Must be Latin-1 text: HTTP headers can carry nothing else."


def _check_event(name: str) -> None:
    fault = event_name_fault(name.strip())
    if fault:
        raise ValidationError(f"An event name {fault}")
    if "*" in name.strip()[:-1]:
        raise ValidationError("A * may stand only at the end: Person* matches by prefix.")


def _check_id(value: str) -> None:
    if not value.strip():
        raise ValidationError("Must not be empty; leave it out for a generated id.")
    if not value.isprintable():
        raise ValidationError("Must not contain control characters.")


def _check_url(url: str) -> None:
    # Never quotes the URL: it may hold a secret.
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValidationError("Must not contain blanks or control characters.")
    try:
        url.encode()
        parts = urlsplit(url)
        port = parts.port
        if "[" in parts.netloc:  # urlsplit lets more than an address pass
            IPv6Address(re.sub(r"^(?:.*@)?\[(.*)\](?::\d*)?$", r"\1", parts.netloc))
    except ValueError:
        raise ValidationError("Not a valid URL; look at the host and the port.") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise ValidationError("Must begin with http:// or https://.")
    if "@" in parts.netloc:
        raise ValidationError("Must not contain user:password; use an Authorization header.")
    host = parts.hostname
    if not host or port == 0:
        raise ValidationError("Must name a host: http://host/path.")
    if not re.fullmatch(r"[^\s\\<>^`{|}\"%*]+", host):
        raise ValidationError("Not a valid host name.")
    try:
        if not host.isascii():
            idna.encode(host, uts46=True)  # as requests will do it
    except UnicodeError:
        raise ValidationError("Not a valid host name.") from None
    if any(not 0 < len(label) < 64 for label in host.removesuffix(".").split(".")):
        raise ValidationError("Not a valid host name.")


class HookSchema(Schema):
    """One hook, field by field."""

    error_messages = {"type": _NOT_AN_OBJECT}

    id = fields.String(
        validate=_check_id,
        metadata={
            "description": "Name of the hook in logs, Flower and commands; unique in the file.",
            "default_text": "`webhook-<n>`, n being its position, counted from 1",
            "minLength": 1,
        },
    )
    events = fields.List(
        fields.String(
            validate=_check_event,
            metadata={"description": "Event name; * or a trailing * matches by prefix."},
        ),
        required=True,
        validate=validate.Length(min=1, error="Must name at least one event."),
        metadata={"description": "The events to deliver: names, Person* or *."},
    )
    url = fields.String(
        required=True,
        validate=_check_url,
        metadata={
            "description": "Where to send them, http or https. ${NAME} is taken from the "
            "environment.",
            "pattern": r"^([Hh][Tt][Tt][Pp][Ss]?://|.*\$\{)",
        },
    )
    method = fields.String(
        load_default="POST",
        validate=lambda value: validate.OneOf(METHODS, error="Must be POST, PUT or PATCH.")(
            value.upper()
        ),
        metadata={
            "description": "POST, PUT or PATCH, in any case.",
            "pattern": "^([Pp][Oo][Ss][Tt]|[Pp][Uu][Tt]|[Pp][Aa][Tt][Cc][Hh])$",
        },
    )
    headers = Headers(
        load_default=dict,
        metadata={
            "description": "Headers to add or replace. ${NAME} in a value is taken from the "
            "environment.",
        },
    )
    timeoutMs = Integer(
        load_default=10_000,
        validate=[validate.Range(min=1), validate.Range(max=MAX_MS)],
        metadata={
            "description": "Deadline of one attempt in milliseconds, for everything from the "
            "name look-up to the end of the answer.",
        },
    )
    retries = Integer(
        load_default=3,
        validate=validate.Range(min=1),
        metadata={"description": "Number of attempts in all; 1 means no retry."},
    )
    backoffMs = Integer(
        load_default=2_000,
        validate=[validate.Range(min=0), validate.Range(max=MAX_MS)],
        metadata={
            "description": "Wait before the second attempt in milliseconds; doubles with each "
            "further attempt.",
        },
    )
    backoffMaxMs = Integer(
        validate=[validate.Range(min=0), validate.Range(max=MAX_MS)],
        metadata={
            "description": "Longest single wait in milliseconds.",
            "default_text": "no limit",
        },
    )
    jitter = Number(
        load_default=0.0,
        validate=validate.Range(min=0, max=1),
        metadata={"description": "Largest share of a wait that is taken off at random, 0 to 1."},
    )
    includeServerEvents = Boolean(
        load_default=False,
        metadata={"description": "Deliver events of internal server processes too."},
    )
    enabled = Boolean(
        load_default=True,
        metadata={"description": "false turns the hook off without removing it."},
    )


class FileSchema(Schema):
    """The whole file."""

    webhooks = fields.List(
        fields.Nested(HookSchema),
        required=True,
        metadata={"description": "The hooks, in any order."},
    )
    schema = fields.Raw(
        data_key="$schema",
        load_default=None,
        metadata={"description": "A JSON Schema for editors; ignored here."},
    )


_FILE = FileSchema()
_HOOK_FIELDS = tuple(HookSchema().fields)
_FILE_FIELDS = ("webhooks", "$schema")


def parse(content: bytes, path: str, environ: Mapping[str, str]) -> Hooks:
    """Read the bytes of a webhooks file.

    Args:
        content: the file as it is on disk: UTF-8 JSON, a byte order mark is ignored.
        path: the file's name, for messages.
        environ: where ``${NAME}`` is looked up.

    Raises:
        ConfigError: with every fault at once.
    """
    document, faults = read_json(content, path)
    if not isinstance(document, dict):
        problem = f'Must be an object {{"webhooks": […]}}, not {kind_of(document)}.'
        raise ConfigError(path, [Fault("", problem)])
    faults += expand(document, environ)
    try:
        loaded = _FILE.load(document)
    except ValidationError as error:
        messages = error.normalized_messages()  # type: ignore[no-untyped-call]
        known = {fault.place for fault in faults}  # one fault a place is enough
        faults += [fault for fault in _flatten(messages, "") if fault.place not in known]
        loaded = None
    faults += _same_ids(document)
    if faults:
        raise ConfigError(path, sorted(faults, key=_in_file_order))
    assert loaded is not None
    return Hooks(_hook(entry, number) for number, entry in enumerate(loaded["webhooks"], start=1))


def _hook(entry: dict[str, Any], position: int) -> Hook:
    return Hook(
        id=entry.get("id", f"webhook-{position}"),
        position=position,
        named="id" in entry,
        events=tuple(name.strip() for name in entry["events"]),
        url=entry["url"],
        method=entry["method"].upper(),
        headers=entry["headers"],
        timeout_ms=entry["timeoutMs"],
        attempts=entry["retries"],
        backoff_ms=entry["backoffMs"],
        backoff_max_ms=entry.get("backoffMaxMs"),
        jitter=entry["jitter"],
        server_events=entry["includeServerEvents"],
        enabled=entry["enabled"],
    )


def _same_ids(document: dict[str, Any]) -> Iterator[Fault]:
    """Find ids used twice, written or generated, also where the schema found other faults."""
    hooks = document.get("webhooks")
    owners: dict[str, int] = {}
    for number, hook in enumerate(hooks if isinstance(hooks, list) else []):
        written = hook.get("id") if isinstance(hook, dict) else None
        name = f"webhook-{number + 1}" if written is None else written
        if not isinstance(name, str):
            continue
        owner = owners.setdefault(name, number)
        if owner != number:
            yield Fault(
                f"webhooks[{number}].id",
                f"{name!r} is the id of webhooks[{owner}] already; ids must differ, generated ones "
                "(webhook-<n>) included.",
            )


def _flatten(messages: Any, place: str) -> Iterator[Fault]:
    """Turn Marshmallow's tree of messages into faults."""
    if isinstance(messages, dict):
        for key, below in messages.items():
            if below == ["Unknown field."]:
                known = _HOOK_FIELDS if place else _FILE_FIELDS
                yield Fault(at(place, key), _unknown(key, known))
            elif below == [_NOT_AN_OBJECT]:  # under "_schema": said of the whole
                yield from _flatten(below, place)
            elif isinstance(key, int):
                yield from _flatten(below, f"{place}[{key}]")
            else:
                yield from _flatten(below, at(place, key))
        return
    for message in messages:
        yield Fault(place, message)


def _unknown(name: str, known: tuple[str, ...]) -> str:
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    if near:
        return f"Unknown field; did you mean {by_lower[near[0]]}?"
    return f"Unknown field; known are {', '.join(known)}."


def _in_file_order(fault: tuple[str, str]) -> tuple[int, str]:
    number = re.match(r"webhooks\[(\d+)\]", fault[0])
    return (int(number[1]) if number else -1, fault[0])
