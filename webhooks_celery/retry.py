"""When to try again: pure arithmetic on a hook's schedule."""

from __future__ import annotations

from .model import Hook

#: A longer wait is no plan but an overflow: dates end in the year 9999.
MAX_WAIT_MS = 365 * 24 * 3600 * 1000


def wait_ms(hook: Hook, attempt: int, random: float = 0.0) -> float:
    """Return the wait after failed ``attempt`` (from 1), in milliseconds.

    ``backoffMs × 2^(attempt-1)``, at most ``backoffMaxMs`` and at most one year; ``random`` in
    [0, 1) takes off its share of ``jitter``. Without jitter the result is exact.
    """
    doublings = min(attempt - 1, 64)  # beyond the cap for every backoffMs from 1
    wait = min(hook.backoff_ms << doublings, MAX_WAIT_MS)
    if hook.backoff_max_ms is not None:
        wait = min(wait, hook.backoff_max_ms)
    return wait * (1.0 - hook.jitter * random) if hook.jitter else wait


def next_wait(hook: Hook, attempt: int, random: float = 0.0) -> float | None:
    """Return the milliseconds to wait after failed ``attempt``, or None to give up."""
    return None if attempt >= hook.attempts else wait_ms(hook, attempt, random)


def timetable(hook: Hook, most: int = 8) -> str:
    """Say when the attempts come if each fails at once: ``at once, +2 s, +6 s``.

    Jitter is left out: these are the latest times. At most ``most`` entries are written out.
    """
    times, elapsed = ["at once"], 0.0
    for attempt in range(1, min(hook.attempts, most)):
        elapsed += wait_ms(hook, attempt)
        times.append(f"+{duration(elapsed)}")
    if hook.attempts > most:
        times.append("…")
    return ", ".join(times)


def duration(milliseconds: float) -> str:
    """Write a duration briefly: ``250 ms``, ``1.5 s``, ``2 min``, ``1 h 5 min``, ``3 d``."""
    if milliseconds < 1000:
        return f"{milliseconds:g} ms"
    seconds = milliseconds / 1000
    if seconds < 60 or (seconds % 60 and seconds < 600):
        return f"{seconds:g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
