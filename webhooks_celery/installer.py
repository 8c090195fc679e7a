"""``install``: puts webhooks into a Celery app, the package's own or a host's."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from celery.utils.imports import symbol_by_name

from .broker import webhooks_queue
from .emitter import WebhookEmit
from .tasks import WebhookDelivery
from .worker import WebhooksStep


def install(app: Celery) -> None:
    """Add the webhook tasks, their queue, the boot check and ``inspect webhooks`` to ``app``.

    Call it once where the app is created, before or after its configuration; a second call does
    nothing. None of the app's settings change. A worker started without ``-Q`` consumes the
    webhooks queue too.
    """
    steps = app.steps["worker"]
    if WebhooksStep in steps:
        return
    steps.add(WebhooksStep)
    if "amqp" in vars(app):
        _add_queue(app, app.amqp.queues)
    else:  # nothing of the configuration may be read yet
        own = symbol_by_name(app.amqp_cls)
        app.amqp_cls = WebhooksAMQP if own is AMQP else type(own.__name__, (WebhooksAMQP, own), {})
    if app.finalized:
        _register(app)
    else:
        app.on_after_finalize.connect(_register, weak=False)


def _register(sender: Any, **_: Any) -> None:
    """Add the tasks to an app that is ready for them."""
    for task in (WebhookDelivery, WebhookEmit):
        # Celery keeps app settings on the class: a class for each app.
        own = type(task.__name__, (task,), {"__module__": task.__module__, "__doc__": task.__doc__})
        sender.register_task(own())


class WebhooksAMQP(AMQP):
    """Adds the webhooks queue when Celery works out an app's queues, however late that is."""

    def Queues(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802 - Celery's name
        return _add_queue(self.app, super().Queues(*args, **kwargs))


def _add_queue(app: Celery, queues: Any) -> Any:
    name = webhooks_queue(app)
    if name not in queues:
        queues.select_add(queues.new_missing(name))
    return queues
