"""How hooks are shown to operators: in the worker's log, by ``inspect`` and by ``check``.

Of a URL only scheme, host and port; of headers nothing.
"""

from __future__ import annotations

from typing import Any

from .config import Config
from .model import Hook
from .retry import duration, timetable


def describe_hook(hook: Hook) -> dict[str, Any]:
    """Return what may be shown of a hook, as JSON values."""
    return {
        "id": hook.id,
        "method": hook.method,
        "to": hook.origin,
        "events": list(hook.events),
        "server_events": hook.server_events,
        "attempts": hook.attempts,
        "timetable": timetable(hook),
        "deadline": duration(hook.timeout_ms),
        "enabled": hook.enabled,
    }


def describe_config(config: Config) -> dict[str, Any]:
    """Return what may be shown of the whole file, as JSON values."""
    shown: dict[str, Any] = {"file": config.path}
    if config.off:
        shown["off"] = config.off
    shown["hooks"] = [describe_hook(hook) for hook in config.hooks]
    return shown


def hook_line(hook: Hook) -> str:
    """Return a hook on one line."""
    line = (
        f"hook {hook.id}: {hook.method} {hook.origin} for {', '.join(hook.events)}"
        f"{' and server events' if hook.server_events else ''}; "
        f"attempts: {hook.attempts} ({timetable(hook)}), deadline {duration(hook.timeout_ms)}"
    )
    return line if hook.enabled else f"{line}; disabled"
