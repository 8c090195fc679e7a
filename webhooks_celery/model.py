"""The values that everything else passes around: frozen, keyword-only, comparable."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

#: The queue of both tasks, unless ``webhooks_queue`` names another.
DEFAULT_QUEUE = "backgroundTask"

#: What HTTP allows in a field value (RFC 9110, 5.5): no control characters but the tab.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def event_name_fault(name: object) -> str | None:
    """Say why ``name`` cannot be the name of an event, or return None if it can.

    The name travels in a header, so it must fit into one: Latin-1, no control characters.
    """
    if not isinstance(name, str):
        return f"must be a string, not {type(name).__name__}."
    if not name.strip():
        return "must not be empty."
    if name != name.strip():
        return "must not begin or end with a blank."
    if _CONTROL.search(name) or "\t" in name:
        return "must not contain control characters."
    if not name.isascii() and any(ord(char) > 255 for char in name):
        return "must be Latin-1: it is sent as an HTTP header."
    return None


def timestamp(moment: datetime) -> str:
    """Format an aware ``moment`` as receivers get it: UTC, milliseconds, ``Z``."""
    text = moment.astimezone(timezone.utc).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened, ready to travel."""

    name: str  #: such as ``PersonCreate``
    timestamp: str  #: when it was emitted: ``2025-11-20T12:34:56.789Z``
    payload: str = field(repr=False)  #: JSON text, encoded once when the event was emitted


@dataclass(frozen=True, kw_only=True, slots=True)
class Hook:
    """One entry of the webhooks file; field by field what its author wrote, with the defaults.

    ``url`` and ``headers`` may hold secrets and are left out of ``repr``.
    """

    id: str  #: written in the file, or ``webhook-<position>``
    position: int  #: place in the file, counted from 1
    named: bool = True  #: the id is written in the file, not made from the position
    events: tuple[str, ...]  #: names, ``*``, or a prefix with a trailing ``*``
    url: str = field(repr=False, hash=False)
    method: str = "POST"  #: in capitals
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    timeout_ms: int = 10_000  #: total deadline of one attempt
    attempts: int = 3  #: ``retries`` in the file: requests in all
    backoff_ms: int = 2_000  #: wait before the second attempt; doubles from there
    backoff_max_ms: int | None = None  #: cap of one wait
    jitter: float = 0.0  #: largest fraction of a wait that is taken off at random, 0..1
    server_events: bool = False  #: also deliver events emitted with ``server=True``
    enabled: bool = True

    @property
    def origin(self) -> str:
        """Scheme, host and port of the URL: all of it that may be shown."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """What one HTTP request came to."""

    status: int | None  #: HTTP status, or None when no complete answer came
    milliseconds: int  #: how long it took
    problem: str = ""  #: empty on success, else what went wrong and what to do

    @property
    def delivered(self) -> bool:
        return not self.problem


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A delivery that was given up, with all that is needed to replay it. Holds no secret."""

    delivery: str  #: delivery id
    hook: str  #: the hook's id
    event: str  #: the event's name
    timestamp: str  #: when the event was emitted
    payload: str = field(repr=False)  #: JSON text
    reason: str  #: why it was given up; of a failed attempt, what went wrong
    attempts: int  #: how many attempts were made
    status: int | None = None  #: last HTTP status, None when no complete answer came
    parked: str  #: when it was given up, in the format of ``timestamp``
    seen: str | None = None  #: fingerprint of the hook when emitted, where its id is a position


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A task message of this package on its way to the broker."""

    id: str  #: the task's id: a delivery id, or an event id for ``WebhookEmit``
    task: str  #: the task's name
    kwargs: Mapping[str, Any] = field(repr=False)  #: JSON values
