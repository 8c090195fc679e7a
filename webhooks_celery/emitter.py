"""``emit``: from an event to one queued delivery for each matching hook."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from time import monotonic
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from celery import Celery
from celery.app import app_or_default
from celery.exceptions import Retry, TaskPredicate
from celery.result import AsyncResult

from .config import config_of
from .errors import EmitError, InvalidEvent, NotInstalledError, WebhooksError
from .model import DeadLetter, Event, Hook, Message, event_name_fault, timestamp
from .payload import encode_payload
from .request import delivery_id, fingerprint
from .sender import sender
from .spool import SpoolError
from .tasks import WebhookDelivery, WebhookTask

logger = logging.getLogger("webhooks_celery")


class WebhookEmit(WebhookTask):
    """Fan an event out in a worker: what ``emit.delay`` queues; the task's id is the event id."""

    name = "WebhookEmit"
    autoretry_for = (EmitError,)
    retry_kwargs = {"countdown": 5}
    #: Before an event that could not be fanned out for another reason is tried again, in seconds.
    puzzled_for = 30

    def run(self, *args: Any, **kwargs: Any) -> list[str]:
        """Fan out; see ``fan_out`` for the arguments. An event that cannot be is not lost."""
        try:
            return self.fan_out(*args, **kwargs)
        except (EmitError, TaskPredicate):
            raise
        except Exception as error:
            if self.request.called_directly or self.request.is_eager:
                raise  # there is no message
            # A message that another version wrote, or a fault of ours: for another worker.
            logger.exception("event %s cannot be fanned out; it stays queued", self.request.id)
            self.retry(exc=error, countdown=self.puzzled_for)

    def fan_out(
        self, event: str, payload: str, timestamp: str, event_id: str, server: bool
    ) -> list[str]:
        """Queue one delivery for each hook of this worker's file that wants the event.

        Returns:
            the delivery ids, the same ones when the task runs again; empty when no hook wants it
            or webhooks are off.
        """
        config = config_of(self.app)
        if config.off:
            logger.warning("event %s is dropped: webhooks are off: %s", event_id, config.off)
        hooks = config.hooks.matching(event, server=server)
        if not hooks:
            return []
        return _queue(
            self.app.tasks[WebhookDelivery.name],
            Event(name=event, timestamp=timestamp, payload=payload),
            event_id,
            hooks,
        )


class Emit:
    """The callable behind ``emit``; see ``__call__`` and ``delay``."""

    def __call__(
        self,
        name: str,
        payload: object = None,
        *,
        server: bool = False,
        event_id: str | UUID | None = None,
        app: Celery | None = None,
    ) -> list[str]:
        """Queue one delivery for each hook that wants this event, here and now.

        Args:
            name: the event's name, such as ``PersonCreate``.
            payload: what to tell the receivers; anything with a JSON form (see
                ``encode_payload``). Not looked at when no hook matches.
            server: an event of an internal server process, for hooks with
                ``includeServerEvents`` only.
            event_id: makes a repeated call harmless: the same event id gives the same delivery
                ids. A UUID, or any text that is unique to the event. Default: a new one.
            app: the Celery app to use. Default: the current app.

        Returns:
            the delivery ids (UUIDs, also the Celery task ids), in the order of the file; empty
            when no hook matches or webhooks are off.

        Raises:
            InvalidEvent: name, id or payload cannot be sent.
            ConfigError: the webhooks file is faulty; nothing was queued.
            EmitError: the broker did not take every delivery.
            NotInstalledError: ``install(app)`` was not called.
            AttemptFailed: with Celery's ``task_always_eager`` and ``task_eager_propagates`` only.
        """
        if fault := event_name_fault(name):
            raise InvalidEvent("name", fault)
        task = installed_task(app)
        hooks = config_of(task.app).hooks.matching(name, server=server)
        if not hooks:
            return []
        event = Event(name=name, timestamp=_now(), payload=encode_payload(payload))
        return _queue(task, event, _event_uuid(event_id), hooks)

    def delay(
        self,
        name: str,
        payload: object = None,
        *,
        server: bool = False,
        event_id: str | UUID | None = None,
        app: Celery | None = None,
    ) -> AsyncResult[list[str]]:
        """Queue the event itself; a worker finds the hooks. This process needs no webhooks file.

        Time, event id and payload are those of this call. Arguments and errors as for ``emit``,
        but for ``ConfigError``.

        Returns:
            the result of the ``WebhookEmit`` task: the delivery ids, where a backend keeps it.
        """
        return self.apply_async(
            (name, payload), {"server": server, "event_id": event_id, "app": app}
        )

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[list[str]]:
        """Like ``delay``, with Celery's options: ``countdown``, ``queue``, ``priority`` …"""
        call = _Call.of(*args, **(kwargs or {}))
        if fault := event_name_fault(call.name):
            raise InvalidEvent("name", fault)
        task = installed_task(call.app)
        event_id = _event_uuid(call.event_id)
        kwargs = {
            "event": call.name,
            "payload": encode_payload(call.payload),
            "timestamp": _now(),
            "event_id": event_id,
            "server": call.server,
        }
        message = Message(id=event_id, task=WebhookEmit.name, kwargs=kwargs)
        _publish(task, event_id, [message], options)
        return task.app.AsyncResult(event_id)


emit = Emit()


class _Call(NamedTuple):
    """The arguments of ``emit``, for ``apply_async``, which gets them as args and kwargs."""

    name: str
    payload: object
    server: bool
    event_id: str | UUID | None
    app: Celery | None

    @classmethod
    def of(
        cls,
        name: str,
        payload: object = None,
        *,
        server: bool = False,
        event_id: str | UUID | None = None,
        app: Celery | None = None,
    ) -> _Call:
        return cls(name, payload, server, event_id, app)


def _queue(task: WebhookDelivery, event: Event, event_id: str, hooks: Sequence[Hook]) -> list[str]:
    """Publish one delivery for each hook; return their ids."""
    messages = [
        _delivery(
            delivery_id(event_id, hook.id),
            hook.id,
            event,
            None if hook.named else fingerprint(hook),
        )
        for hook in hooks
    ]
    _publish(task, event_id, messages)
    return [message.id for message in messages]


def replay(app: Celery, letter: DeadLetter) -> None:
    """Queue the delivery of a dead letter again: same id, fresh count of attempts."""
    task = installed_task(app)
    event = Event(name=letter.event, timestamp=letter.timestamp, payload=letter.payload)
    with task.publisher.producer() as producer:
        sender(task, producer)(_delivery(letter.delivery, letter.hook, event, letter.seen))


def flush_spool(app: Celery, limit: int | None = None) -> int:
    """Send what waits in the spool, or about ``limit`` of it; return how many messages there were.

    Raises:
        kombu.exceptions.OperationalError: the broker is still away.
    """
    task = installed_task(app)
    if task.spool is None or next(task.spool.browse(), None) is None:
        return 0
    with task.publisher.producer() as producer:
        senders = {
            name: sender(task.app.tasks[name], producer)
            for name in (WebhookDelivery.name, WebhookEmit.name)
        }
        return task.spool.flush(lambda message: senders[message.task](message), limit)


def _delivery(delivery: str, hook: str, event: Event, seen: str | None) -> Message:
    kwargs = {
        "hook": hook,
        "event": event.name,
        "timestamp": event.timestamp,
        "payload": event.payload,
        "seen": seen,
    }
    return Message(id=delivery, task=WebhookDelivery.name, kwargs=kwargs)


def _publish(
    task: WebhookDelivery,
    event_id: str,
    messages: Sequence[Message],
    options: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Give all messages of an event to the broker over one connection, or else to the spool.

    Raises:
        EmitError: neither was possible for all of them.
    """
    sent = 0
    deadline = monotonic() + task.publisher.timeout
    try:
        with task.publisher.producer() as producer:
            send = sender(task.app.tasks[messages[0].task], producer, options)
            for message in messages:
                if monotonic() > deadline:
                    raise TimeoutError(f"the broker took longer than {task.publisher.timeout:g} s")
                send(message)
                sent += 1
    except WebhooksError:  # from a task that ran eagerly
        raise
    except Retry as retry:  # likewise, with task_eager_propagates: Celery does not go on then
        raise retry.exc from None
    except Exception as error:
        unsent = messages[sent:]
        reason = f"{type(error).__name__}: {error}"
        # Celery's options are not spooled: a countdown, say, would be lost.
        if task.spool is not None and not options:
            try:
                task.spool.add(unsent)
            except SpoolError as spool_error:
                reason += f"; and {spool_error}"
            else:
                logger.warning("spooled %d, the broker is away: %s", len(unsent), reason)
                return
        ids = [message.id for message in messages]
        raise EmitError(event_id, ids[:sent], ids[sent:], reason) from error


def installed_task(app: Celery | None) -> WebhookDelivery:
    """Return the delivery task of ``app``, by default of the current app.

    Raises:
        NotInstalledError: the app has none.
    """
    app = app_or_default(app)
    task: WebhookDelivery | None = app.tasks.get(WebhookDelivery.name)
    if task is None:
        raise NotInstalledError(str(app.main))
    return task


def _event_uuid(event_id: str | UUID | None) -> str:
    if event_id is None:
        return str(uuid4())
    if isinstance(event_id, UUID):
        return str(event_id)
    if not isinstance(event_id, str) or not event_id:
        raise InvalidEvent("event_id", "must be a UUID or a string that is not empty.")
    try:
        return str(UUID(event_id))
    except ValueError:
        return str(uuid5(NAMESPACE_URL, event_id))


def _now() -> str:
    return timestamp(datetime.now(timezone.utc))
