"""Publishes messages of a task, with as little work for each as possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from .broker import serializer_of, webhooks_queue
from .model import Message
from .publisher import RETRY_POLICY
from .tasks import WebhookTask


def sender(
    task: WebhookTask, producer: Any, options: Mapping[str, Any] = MappingProxyType({})
) -> Callable[[Message], object]:
    """Return what publishes messages of ``task``.

    ``apply_async`` works out anew for each message what is the same for all of an event's, which
    costs as much as publishing one.
    """
    plain = not options and producer is not None and task.expires is None
    return _QuickSender(task, producer) if plain else partial(_send, task, producer, options)


def _send(task: WebhookTask, producer: Any, options: Mapping[str, Any], message: Message) -> None:
    task.apply_async(
        kwargs=message.kwargs,
        task_id=message.id,
        **{
            "producer": producer,
            "retry": True,
            "retry_policy": RETRY_POLICY,
            "kwargsrepr": _shown(message),
            **options,
        },
    )


class _QuickSender:
    """Does what ``Task.apply_async`` and ``Celery.send_task`` do, where there are no options."""

    def __init__(self, task: WebhookTask, producer: Any) -> None:
        self._task = task
        self._app = app = task.app
        self._producer = producer
        self._options = {
            name: value for name, value in task._get_exec_options().items() if value is not None
        }
        self._options |= {"queue": webhooks_queue(app), "serializer": serializer_of(app)}
        self._ignore_result = bool(self._options.pop("ignore_result", task.ignore_result))
        self._parent = parent = app.current_worker_task
        self._message = {
            "reply_to": app.thread_oid,
            "time_limit": self._options.pop("time_limit", None),
            "soft_time_limit": self._options.pop("soft_time_limit", None),
            "create_sent_event": app.conf.task_send_sent_event,
            "ignore_result": self._ignore_result,
            "argsrepr": "()",
        }
        if parent is not None:
            self._message["root_id"] = parent.request.root_id or parent.request.id
            self._message["parent_id"] = parent.request.id
            if app.conf.task_inherit_parent_priority:
                self._options.setdefault("priority", parent.request.delivery_info.get("priority"))

    def __call__(self, message: Message) -> None:
        name, app, amqp = self._task.name, self._app, self._app.amqp
        options = amqp.router.route(dict(self._options), name, (), message.kwargs, self._task)
        task_message = amqp.create_task_message(
            message.id,
            name,
            (),
            message.kwargs,
            shadow=self._task.shadow_name((), message.kwargs, options),
            kwargsrepr=_shown(message),
            **self._message,
        )
        if not self._ignore_result:
            app.backend.on_task_call(self._producer, message.id)
        amqp.send_task_message(
            self._producer, name, task_message, retry=True, retry_policy=RETRY_POLICY, **options
        )
        if self._parent is not None:
            self._parent.add_trail(app.AsyncResult(message.id))


def _shown(message: Message) -> str:
    """Return what monitors show; without it Celery would print the payload."""
    return repr(
        {name: message.kwargs[name] for name in ("hook", "event") if name in message.kwargs}
    )
