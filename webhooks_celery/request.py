"""The bytes that a receiver gets: body, headers, delivery id. Pure, and a public contract."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from uuid import UUID, uuid5

from .model import Event, Hook

try:
    VERSION = version("webhooks_celery")
except PackageNotFoundError:  # run from a source tree that is not installed
    VERSION = "unknown"

DEFAULT_HEADER_PREFIX = "X-Immich-"
_USER_AGENT = f"webhooks-celery/{VERSION}"


def delivery_id(event_id: str, hook_id: str) -> str:
    """Return the id of the delivery of one event to one hook.

    A name-based UUID (RFC 9562, version 5), so the same event emitted again has the same ids.
    """
    return str(uuid5(UUID(event_id), hook_id))


def fingerprint(hook: Hook) -> str:
    """Return a short digest of where ``hook`` sends to; tells nothing of the URL."""
    return sha256(f"{hook.method} {hook.url}".encode()).hexdigest()[:12]


def body(delivery: str, event: Event) -> bytes:
    """Return the request's body: compact UTF-8 JSON, the payload's text put in as it is."""
    name = json.dumps(event.name, ensure_ascii=False)
    return (
        f'{{"id":"{delivery}","eventName":{name},"timestamp":"{event.timestamp}",'
        f'"payload":{event.payload}}}'
    ).encode()


class Headers:
    """The headers of a hook's requests, with what never changes prepared once."""

    def __init__(
        self,
        hook: Hook,
        prefix: str = DEFAULT_HEADER_PREFIX,
        extra: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        own = {name.lower() for name in hook.headers}
        self._fixed: dict[str, str] = {}
        for name, value in (("Content-Type", "application/json"), ("User-Agent", _USER_AGENT)):
            if name.lower() not in own:
                self._fixed[name] = value
        self._fixed.update(hook.headers)
        self._fixed.update(extra)
        #: Names of the headers that tell event name, delivery id and timestamp, in this order;
        #: None where the hook has a header of that name.
        self._told = [
            None if name.lower() in own else name
            for name in (f"{prefix}Event", f"{prefix}Delivery-Id", f"{prefix}Timestamp")
        ]

    def for_delivery(self, delivery: str, event: Event) -> dict[str, str]:
        """Return all headers of one delivery; the same on every attempt."""
        values: Iterable[str] = (event.name, delivery, event.timestamp)
        told = {name: value for name, value in zip(self._told, values) if name is not None}
        return self._fixed | told
