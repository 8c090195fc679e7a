"""The delivery task: one attempt, then success, another attempt later, or giving up."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from celery import Task
from celery.exceptions import (
    Ignore,
    Reject,
    Retry,
    SoftTimeLimitExceeded,
    TaskPredicate,
)

from .broker import exact_wait, is_quorum, serializer_of, webhooks_queue
from .config import config_of
from .dead_letters import DeadLetters
from .errors import AttemptFailed, UnknownHook
from .model import Attempt, DeadLetter, Event, Hook, timestamp
from .publisher import RETRY_POLICY, BrokerFull, Publisher, reason_of
from .request import DEFAULT_HEADER_PREFIX, fingerprint
from .retry import duration, next_wait
from .shares import Shares
from .spool import DEFAULT_MAX_BYTES, Spool

if TYPE_CHECKING:
    from .transport import Transport

logger = logging.getLogger("webhooks_celery")

#: A delivery whose worker was lost so many times during one attempt is parked.
MAX_LOST = 5
#: Before a message is given back because the broker takes no new one, in seconds: it comes again
#: at once, and would go to and fro as fast as the machine can.
GIVE_BACK_AFTER = 1.0
#: So long a message is held while RabbitMQ takes no new one, in seconds. Giving it back counts as
#: a lost worker, and RabbitMQ 4 drops what was given back 20 times.
HOLD = 10.0


class WebhookTask(Task):
    """What both tasks share: their queue, and messages that survive the loss of a worker.

    Set on the tasks, so that it holds in a host's app whatever its settings are.
    """

    abstract = True
    acks_late = True
    acks_on_failure = True  # what failed for good is parked by then
    acks_on_timeout = False
    reject_on_worker_lost = True
    max_retries = None  # the hook decides

    def apply_async(self, *args: Any, **options: Any) -> Any:
        options.setdefault("queue", webhooks_queue(self.app))
        options.setdefault("serializer", serializer_of(self.app))
        return super().apply_async(*args, **options)

    def retry(self, *args: Any, **options: Any) -> NoReturn:
        """Queue this task again; if the broker does not take it, keep the message we have.

        Celery would reject the message for good in that case, and the delivery were gone.
        """
        if self.request.called_directly or self.request.is_eager:
            super().retry(*args, **options)
        queue = webhooks_queue(self.app)
        if is_quorum(self.app.amqp.queues[queue]):
            options = exact_wait(options, self.app.now())
        # Whether to go on was decided before; a host's annotations have no say in it.
        options["max_retries"] = self.request.retries + 1
        again = super().retry

        def publish() -> None:
            with self.publisher.producer() as producer:
                again(
                    *args,
                    queue=queue,
                    producer=producer,
                    retry=True,
                    retry_policy=RETRY_POLICY,
                    **options,
                )

        or_give_back(publish, f"{self.request.id} cannot be queued")
        raise AssertionError("Celery's retry() always raises")

    @cached_property
    def publisher(self) -> Publisher:
        """The connections that this app publishes webhooks over."""
        return Publisher(self.app)

    @property
    def spool(self) -> Spool | None:
        """Where events wait while the broker is away, if ``webhooks_spool`` names a folder."""
        conf = self.app.conf
        folder = conf.get("webhooks_spool")
        if not folder:
            return None
        limit = conf.get("webhooks_spool_max_bytes")
        return Spool(Path(folder), DEFAULT_MAX_BYTES if limit is None else int(limit))

    def close(self) -> None:
        """Close connections; they are opened again when needed."""
        self.publisher.close()


class WebhookDelivery(WebhookTask):
    """Deliver one event to one hook; the task's id is the delivery id.

    The message names the hook and carries the event. URL, headers and schedule come from this
    worker's own webhooks file, so no secret ever reaches the broker.
    """

    name = "WebhookDelivery"
    Strategy = f"{__package__}.admission:admit"
    autoretry_for = (AttemptFailed,)
    # A delivery that fails is an outcome, not a bug: no traceback in the log.
    throws = (AttemptFailed, UnknownHook)

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Make one attempt; see ``deliver`` for the arguments and the result.

        Whatever keeps the delivery from ever succeeding parks it as a dead letter.

        Raises:
            AttemptFailed: autoretry then calls ``retry``, which decides how to go on.
            UnknownHook: this worker's file has no such hook.
        """
        try:
            return self.deliver(*args, **kwargs)
        except (AttemptFailed, TaskPredicate):
            raise
        except UnknownHook as error:
            logger.error("delivery %s: %s", self.request.id, error, extra=self._log_extra())
            self._park(f"{error.hook}: {error.why}", self.request.retries)
            raise
        except Exception as error:
            # A message that another version wrote, or a fault of ours: nothing a retry mends.
            logger.exception("delivery %s failed", self.request.id, extra=self._log_extra())
            self._park(f"{type(error).__name__}: {error}", self.request.retries)
            raise

    def deliver(
        self,
        hook: str,
        event: str,
        timestamp: str,
        payload: str,
        seen: str | None = None,
        lost: int = 0,
    ) -> dict[str, Any]:
        """Make one attempt.

        Args:
            hook: the hook's id.
            event: the event's name.
            timestamp: when it was emitted, as the receiver gets it.
            payload: JSON text.
            seen: fingerprint of the hook in the emitting process, if its id is a position.
            lost: how many times this attempt was begun by a worker that did not finish it.

        Returns:
            hook, event, HTTP status, number of the attempt, its duration in milliseconds.

        Raises:
            AttemptFailed: the attempt failed.
            UnknownHook: this worker's file has no such hook.
        """
        if (self.request.delivery_info or {}).get("redelivered"):
            self._count_loss(lost + 1)
        found = self._hook(hook, seen)
        attempt = self._attempt(found, Event(name=event, timestamp=timestamp, payload=payload))
        number = self.request.retries + 1
        if not attempt.delivered:
            raise AttemptFailed(hook, number, found.attempts, attempt.problem, attempt.status)
        return {
            "hook": hook,
            "event": event,
            "status": attempt.status,
            "attempt": number,
            "milliseconds": attempt.milliseconds,
        }

    def _attempt(self, hook: Hook, event: Event) -> Attempt:
        """Make one attempt if the hook may take a place; else put the delivery off."""
        direct = self.request.called_directly or self.request.is_eager
        shares = None if direct else self.shares
        if shares is not None and (wait := shares.take(hook.id)) is not None:
            self._queue_anew(countdown=wait)
        started = monotonic()
        try:
            return self.transport.attempt(hook, self.request.id or str(uuid4()), event)
        except SoftTimeLimitExceeded:
            problem = (
                "the worker's soft time limit came before timeoutMs; raise task_soft_time_limit or "
                "lower timeoutMs."
            )
            raise AttemptFailed(hook.id, self.request.retries + 1, hook.attempts, problem) from None
        finally:
            if shares is not None:
                shares.give_back(hook.id, monotonic() - started, hook.timeout_ms / 1000)

    def retry(self, *args: Any, exc: Exception | None = None, **options: Any) -> NoReturn:
        """Go on as the hook's schedule says; called by Celery's autoretry.

        Whatever schedule autoretry worked out is ignored: it cannot express ``backoffMs``.
        """
        if not isinstance(exc, AttemptFailed):
            super().retry(*args, exc=exc, **options)
        wait = next_wait(self._hook(exc.hook), exc.attempt, random())  # noqa: S311
        if wait is None:
            text = "delivery %s: %s Given up."
            logger.error(text, self.request.id, exc, extra=self._log_extra())
            self._park(exc.reason, exc.attempt, exc.status)
            # Celery copies and formats tracebacks at ten times the cost of an attempt.
            raise exc.with_traceback(None) from None
        text = "delivery %s: %s Next attempt in %s."
        logger.warning(text, self.request.id, exc, duration(wait), extra=self._log_extra())
        try:
            super().retry(exc=exc, kwargs={**self.request.kwargs, "lost": 0}, countdown=wait / 1000)
        except Retry as retry:
            raise retry.with_traceback(None) from None

    #: Set by a worker whose attempts share places, in threads or greenlets.
    shares: Shares | None = None

    @property
    def dead_letters(self) -> DeadLetters:
        """The deliveries of this app that were given up."""
        queue = self.app.conf.get("webhooks_dead_letter_queue")
        return DeadLetters(str(queue or f"{webhooks_queue(self.app)}.dead"), self.publisher)

    def _count_loss(self, lost: int) -> NoReturn:
        """Note that a worker took this message and did not finish; queue it anew or park it.

        The count travels in the message, for the broker counts nothing that all brokers share. A
        delivery that kills its worker each time is so found out.
        """
        problem = f"delivery %s came back (%d of {MAX_LOST}): its worker ended or lost the broker."
        logger.warning(
            problem + " If an attempt was under way, the receiver sees it twice.",
            self.request.id,
            lost,
            extra=self._log_extra(),
        )
        if lost >= MAX_LOST:
            self._park(f"its worker was lost {lost} times", self.request.retries)
            raise Ignore
        self._queue_anew(lost=lost)

    def _queue_anew(self, countdown: int | None = None, **changes: Any) -> NoReturn:
        """Publish this message again, to be run as the same attempt; it is then done with here.

        Args:
            countdown: how long it waits, in whole seconds.
            changes: arguments that are different.
        """
        again = self.signature_from_request(
            kwargs={**self.request.kwargs, **changes},
            queue=webhooks_queue(self.app),
            retries=self.request.retries,
        )

        def publish() -> None:
            with self.publisher.producer() as producer:
                again.apply_async(
                    countdown=countdown, producer=producer, retry=True, retry_policy=RETRY_POLICY
                )

        or_give_back(publish, f"{self.request.id} cannot be queued")
        raise Ignore

    def _park(self, reason: str, attempts: int, status: int | None = None) -> None:
        """Keep this delivery as a dead letter; if that fails, the broker keeps the message."""
        if self.request.called_directly or self.request.is_eager:
            return  # there is no message: whoever called gets the error
        message = dict(zip(("hook", "event", "timestamp", "payload"), self.request.args or ()))
        message |= self.request.kwargs or {}
        letter = DeadLetter(
            delivery=self.request.id,
            hook=str(message.get("hook", "")),
            event=str(message.get("event", "")),
            timestamp=str(message.get("timestamp", "")),
            payload=str(message.get("payload", "null")),
            reason=reason,
            attempts=attempts,
            status=status,
            parked=timestamp(datetime.now(timezone.utc)),
            seen=message.get("seen"),
        )
        or_give_back(
            lambda: self.dead_letters.park(letter), f"delivery {letter.delivery} cannot be parked"
        )

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
        """Show the hook in the task's name, so that Flower counts each hook by itself."""
        hook = (kwargs or {}).get("hook") or (args[0] if args else None)
        return f"{self.name}[{hook}]" if hook else None

    @property
    def transport(self) -> Transport:
        """The transport of this process: a connection made before a fork must not be used after."""
        if self._transport is None or self._transport_pid != os.getpid():
            with self._transport_lock:
                if self._transport is None or self._transport_pid != os.getpid():
                    from .transport import Transport  # only processes that deliver need requests

                    prefix = self.app.conf.get("webhooks_header_prefix")
                    self._transport = Transport(DEFAULT_HEADER_PREFIX if prefix is None else prefix)
                    self._transport_pid = os.getpid()
        return self._transport

    _transport: Transport | None = None
    _transport_pid = 0
    _transport_lock = threading.Lock()

    def close(self) -> None:
        super().close()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _hook(self, hook_id: str, seen: str | None = None) -> Hook:
        """Return this worker's definition of the hook."""
        config = config_of(self.app)
        hook = config.hooks.get(hook_id)
        if config.off:
            raise UnknownHook(hook_id, f"webhooks are off here ({config.off})")
        if hook is None:
            raise UnknownHook(hook_id, f"not in {config.path}")
        if not hook.enabled:
            raise UnknownHook(hook_id, f"disabled in {config.path}")
        if seen is not None and seen != fingerprint(hook):
            # Its id is only a position, and another hook may stand there now.
            raise UnknownHook(hook_id, f"changed: in {config.path} it sends to another address")
        return hook

    def _log_extra(self) -> dict[str, Any]:
        return {
            "webhook_delivery": self.request.id,
            "webhook_hook": (self.request.kwargs or {}).get("hook"),
            "webhook_attempt": self.request.retries + 1,
        }


def or_give_back(publish: Callable[[], object], problem: str) -> None:
    """Call ``publish``, again and again while RabbitMQ is full; else keep the message we have."""
    until = monotonic() + HOLD
    held = False
    while True:
        try:
            if held:  # in here, for a time limit may end the wait
                threading.Event().wait(GIVE_BACK_AFTER)
            publish()
        except Retry:  # is how Celery goes on after publishing
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the message must stay
            if not isinstance(reason_of(error), BrokerFull) or monotonic() > until:
                logger.error("%s: %s", problem, reason_of(error))
                raise give_back(reason_of(error)) from None
            held = True
        else:
            return


def give_back(reason: Any) -> Reject:
    """Return what leaves our message with the broker, after a moment for it to recover."""
    with suppress(SoftTimeLimitExceeded):  # it comes once, and would end in an acknowledgement
        threading.Event().wait(GIVE_BACK_AFTER)
    # As text: not every error survives the way from a pool's child to the worker.
    return Reject(str(reason), requeue=True)
