"""Webhooks delivered through Celery.

``install(app)`` puts webhooks into a Celery app, ``emit(name, payload)`` queues an event's
deliveries, ``emit.delay(name, payload)`` leaves finding the hooks to a worker. The errors they
raise are in ``webhooks_celery.errors``.

Names are loaded when they are first used: every ``celery`` command imports this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .emitter import emit as emit
    from .errors import ConfigError as ConfigError
    from .errors import EmitError as EmitError
    from .errors import InvalidEvent as InvalidEvent
    from .errors import WebhooksError as WebhooksError
    from .installer import install as install

_HOME = {
    "emit": "emitter",
    "install": "installer",
    "ConfigError": "errors",
    "EmitError": "errors",
    "InvalidEvent": "errors",
    "WebhooksError": "errors",
}

__all__ = ["ConfigError", "EmitError", "InvalidEvent", "WebhooksError", "emit", "install"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
    return value
