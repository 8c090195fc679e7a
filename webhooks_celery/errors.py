"""Everything this package raises on purpose.

    WebhooksError
    ├── ConfigError        the webhooks file is wrong; lists every fault at once
    ├── NotInstalledError  the Celery app in use knows nothing of webhooks
    ├── InvalidEvent       an event that cannot be sent as JSON (also a ValueError)
    ├── EmitError          the broker took only some of an event's deliveries, or none
    └── DeliveryError
        ├── AttemptFailed  one HTTP request did not end in a 2xx
        └── UnknownHook    the worker's file has no such hook

Each error can be pickled and keeps its data as attributes beside the text. None of them ever holds
a URL's path or query, a header's value or another secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: Exit status of a process whose webhooks file is faulty (sysexits.h); Windows has no
#: ``os.EX_CONFIG``.
EX_CONFIG = 78


class WebhooksError(Exception):
    """The root of the tree."""


class Fault(NamedTuple):
    """One thing that is wrong in the webhooks file."""

    place: str  #: where: ``webhooks[0].timeoutMs``, or empty when the whole file is meant
    problem: str  #: what is wrong and what to do about it

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}" if self.place else self.problem


class ConfigError(WebhooksError):
    """The webhooks file cannot be used.

    Attributes:
        path: the file, as it was named in the configuration.
        faults: every fault found, in the order of the file.
    """

    def __init__(self, path: str, faults: Sequence[Fault | tuple[str, str]]) -> None:
        self.path = path
        self.faults = tuple(Fault(*fault) for fault in faults)
        super().__init__(path, self.faults)

    def __str__(self) -> str:
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        lines = [f"{self.path} cannot be used ({count}):"]
        lines += [f"  {fault}" for fault in self.faults]
        return "\n".join(lines)


class NotInstalledError(WebhooksError):
    """``emit`` was called with a Celery app that has no webhooks installed.

    Attributes:
        app_name: the app's ``main`` name, as far as it has one.
    """

    def __init__(self, app_name: str) -> None:
        self.app_name = app_name
        super().__init__(app_name)

    def __str__(self) -> str:
        return (
            f"webhooks are not installed in the Celery app {self.app_name!r}. Call "
            "webhooks_celery.install(app) where that app is created and import that module in this "
            "process, or import webhooks_celery.celery to use the app of its own."
        )


class InvalidEvent(WebhooksError, ValueError):
    """An event that cannot be carried.

    Attributes:
        place: the part that is wrong: ``name``, ``event_id``, ``payload.user.avatar``.
        problem: what is wrong with it.
    """

    def __init__(self, place: str, problem: str) -> None:
        self.place = place
        self.problem = problem
        super().__init__(place, problem)

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


class EmitError(WebhooksError):
    """The broker did not take every delivery of an event.

    Emit again with the same ``event_id``: the delivery ids stay the same, so a receiver that
    de-duplicates by id sees nothing twice.

    Attributes:
        event_id: the event's id.
        queued: ids of the deliveries that the broker took.
        not_queued: ids of those it did not take; of ``emit.delay`` the event's own id.
        reason: what the broker connection said.
    """

    def __init__(
        self, event_id: str, queued: Sequence[str], not_queued: Sequence[str], reason: str
    ) -> None:
        self.event_id = event_id
        self.queued = tuple(queued)
        self.not_queued = tuple(not_queued)
        self.reason = reason
        super().__init__(event_id, self.queued, self.not_queued, reason)

    def __str__(self) -> str:
        total = len(self.queued) + len(self.not_queued)
        what = f"{len(self.not_queued)} of {total} deliveries were"
        if self.not_queued == (self.event_id,):
            what = "the event was"
        return (
            f"{what} not queued: {self.reason}. Emit again with event_id={self.event_id!r} when "
            "the broker is back: ids stay the same."
        )


class DeliveryError(WebhooksError):
    """A delivery, or one attempt of it, did not work."""


class AttemptFailed(DeliveryError):
    """One HTTP request of a delivery did not end in a 2xx.

    Attributes:
        hook: the hook's id.
        attempt: number of the attempt, from 1.
        attempts: how many attempts the hook allows in all.
        reason: what happened.
        status: the HTTP status, or None when no complete answer came.
    """

    def __init__(
        self, hook: str, attempt: int, attempts: int, reason: str, status: int | None = None
    ) -> None:
        self.hook = hook
        self.attempt = attempt
        self.attempts = attempts
        self.reason = reason
        self.status = status
        super().__init__(hook, attempt, attempts, reason, status)

    def __str__(self) -> str:
        return f"hook {self.hook}, attempt {self.attempt} of {self.attempts}: {self.reason}"


class UnknownHook(DeliveryError):
    """A delivery names a hook that the worker's file does not have, or has disabled.

    Attributes:
        hook: the hook's id.
        why: what the worker's file says instead.
    """

    def __init__(self, hook: str, why: str) -> None:
        self.hook = hook
        self.why = why
        super().__init__(hook, why)

    def __str__(self) -> str:
        return (
            f"hook {self.hook}: {self.why}. This worker and the process that emitted use "
            "different webhooks files; give both the same one, restart them, then run "
            "celery webhooks dead replay."
        )
