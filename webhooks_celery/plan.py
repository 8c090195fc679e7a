"""Whether a hook's timetable and the broker's limits go together: pure.

The limits are those of Celery's transports: Redis gives a message that was taken and not
acknowledged to another worker after ``visibility_timeout``, RabbitMQ closes the connection of a
consumer that holds one longer than ``consumer_timeout``. Deliveries that wait for their next
attempt in a worker's memory are such messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil

from .model import Hook
from .retry import duration, wait_ms

#: RabbitMQ's default since 3.8.17, in seconds; its actual value cannot be asked over AMQP.
CONSUMER_TIMEOUT = 1800.0
#: On top of what the hooks need, in seconds: for publishing and clocks that differ.
MARGIN = 60.0
#: Where the broker keeps waiting deliveries, a worker has them this long before their time, in
#: seconds; the worker then is exact. Longer than an idle worker takes to look again.
AHEAD = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What bounds how long a worker may hold a message; times in seconds."""

    kind: str  #: the transport: ``redis``, ``amqp`` or another one
    visibility_timeout: float = 3600.0  #: of Redis
    waits_in_broker: bool = False  #: the broker keeps waiting deliveries, not a worker's memory
    prefetch: int = 4  #: messages taken per process or thread of the pool; 0 means without limit
    time_limit: float | None = None  #: Celery's hard or soft limit for a task, the shorter one
    margin: float = MARGIN  #: added to what the hooks need

    def visibility_timeout_for(self, hooks: Iterable[Hook]) -> float:
        """Return the shortest safe ``visibility_timeout``, in seconds."""
        return visibility_timeout(
            hooks, self.prefetch, waits_in_broker=self.waits_in_broker, margin=self.margin
        )


def longest_wait(hook: Hook) -> float:
    """Return the longest single wait between two attempts, in seconds."""
    if hook.attempts == 1:
        return 0.0
    return wait_ms(hook, hook.attempts - 1) / 1000


def held_wait(hook: Hook, waits_in_broker: bool) -> float:
    """Return how long a worker may hold a delivery that waits, in seconds."""
    wait = longest_wait(hook)
    return min(wait, AHEAD) if waits_in_broker else wait


def visibility_timeout(
    hooks: Iterable[Hook], prefetch: int, *, waits_in_broker: bool = False, margin: float = MARGIN
) -> float:
    """Return the shortest safe ``visibility_timeout`` for these hooks, in seconds.

    The longest single wait, then attempts of the messages taken before it, then a margin.
    """
    enabled = [hook for hook in hooks if hook.enabled]
    wait = max((held_wait(hook, waits_in_broker) for hook in enabled), default=0.0)
    deadline = max((hook.timeout_ms / 1000 for hook in enabled), default=0.0)
    return wait + (prefetch + 1) * deadline + margin


def problems(hooks: Iterable[Hook], limits: Limits) -> Iterator[str]:
    """Say what of these hooks' timetables would duplicate or lose deliveries, and the remedy."""
    enabled = [hook for hook in hooks if hook.enabled]
    for hook in enabled:
        held = held_wait(hook, limits.waits_in_broker) + hook.timeout_ms / 1000
        if limits.kind == "redis" and held > limits.visibility_timeout:
            enough = ceil(limits.visibility_timeout_for(enabled))
            yield (
                f"hook {hook.id}: its longest wait and its deadline take {_seconds(held)}, but "
                "Redis gives the delivery to another worker after "
                f"{_seconds(limits.visibility_timeout)}: it would be attempted too often. Set "
                f'broker_transport_options["visibility_timeout"] to at least {enough}, or lower '
                "retries, backoffMs or backoffMaxMs."
            )
        remedy = "Use a quorum queue, or lower retries, backoffMs, backoffMaxMs or timeoutMs."
        if limits.waits_in_broker:
            held, remedy = hook.timeout_ms / 1000, "Lower timeoutMs."
        if limits.kind == "amqp" and held > CONSUMER_TIMEOUT:
            yield (
                f"hook {hook.id}: a worker would hold its delivery for {_seconds(held)}, but "
                f"RabbitMQ closes the connection after {_seconds(CONSUMER_TIMEOUT)} (its default "
                f"consumer_timeout). {remedy}"
            )
        if limits.time_limit is not None and limits.time_limit * 1000 <= hook.timeout_ms:
            yield (
                f"hook {hook.id}: its deadline is {duration(hook.timeout_ms)}, but Celery ends a "
                f"task after {_seconds(limits.time_limit)}. Raise task_time_limit and "
                "task_soft_time_limit above it, or lower timeoutMs."
            )


def _seconds(value: float) -> str:
    return duration(round(value, 3) * 1000)
