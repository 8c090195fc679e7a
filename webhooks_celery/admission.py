"""Puts a delivery off before the pool gets it, if its hook has taken the places it may take.

``WebhookDelivery`` could do so itself, and does when places are taken between here and there. But
whatever Celery's pool gets and does not finish costs as much as several deliveries.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from time import monotonic
from typing import Any

from celery import Celery
from celery.worker.strategy import default
from kombu.transport.native_delayed_delivery import MAX_LEVEL, calculate_routing_key, level_name

from .broker import is_quorum, webhooks_queue
from .publisher import RETRY_POLICY, Publisher

logger = logging.getLogger("webhooks_celery")

#: How often it is told that a hook's deliveries wait, in seconds.
TELL_EVERY = 60.0
#: Headers that are not published again: kombu has undone the compression, and RabbitMQ, which notes
#: where a message has waited, drops one that waits again as going round in circles.
_DROPPED = {"compression", "x-death"} | {
    f"x-{which}-death-{what}"
    for which in ("first", "last")
    for what in ("exchange", "queue", "reason")
}


def admit(task: Any, app: Celery, consumer: Any, **_: Any) -> Any:
    """Make what a worker calls with each delivery that it has received; a Celery ``Strategy``."""
    hand_on = default(task, app, consumer)
    if task.shares is None:
        return hand_on
    told: dict[str, float] = {}

    def receive(message: Any, body: Any, ack: Any, *args: Any, **kwargs: Any) -> Any:
        hook = _hook(message)
        wait = None if hook is None else task.shares.wait(hook)
        if hook is None or wait is None:
            return hand_on(message, body, ack, *args, **kwargs)
        try:
            put_off(app, task.publisher, message, wait)
        except Exception as error:  # noqa: BLE001 - whatever it was, the pool may deal with it
            logger.warning("a delivery to hook %s cannot wait: %s", hook, error)
            return hand_on(message, body, ack, *args, **kwargs)
        if monotonic() - told.get(hook, -TELL_EVERY) >= TELL_EVERY:
            told[hook] = monotonic()
            text = "hook %s: its attempts take so long that further deliveries wait, to leave room"
            logger.warning("%s for other hooks.", text % hook)
        ack(logger, consumer.connection_errors)
        return None

    return receive


def put_off(app: Celery, publisher: Publisher, message: Any, wait: int) -> None:
    """Publish a message again, to be received in ``wait`` seconds."""
    queue = app.amqp.queues[webhooks_queue(app)]
    address = {"exchange": "", "routing_key": queue.name}
    if is_quorum(queue):
        routing_key = calculate_routing_key(wait, queue.routing_key)
        address = {"exchange": level_name(MAX_LEVEL), "routing_key": routing_key}
    eta = (app.now() + timedelta(seconds=wait)).isoformat()
    headers = {name: each for name, each in message.headers.items() if name not in _DROPPED}
    kept = ("correlation_id", "reply_to", "priority", "delivery_mode")
    with publisher.producer() as producer:
        producer.publish(
            message.body,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers={**headers, "eta": eta},
            declare=[queue],
            retry=True,
            retry_policy=RETRY_POLICY,
            **address,
            **{name: message.properties[name] for name in kept if name in message.properties},
        )


def _hook(message: Any) -> str | None:
    """Return the hook of a delivery; None if somebody else is to find out what is wrong with it."""
    if (message.delivery_info or {}).get("redelivered"):
        return None
    try:
        _, kwargs, _ = message.payload
        hook = kwargs["hook"]
    except (TypeError, ValueError, KeyError):
        return None
    return hook if isinstance(hook, str) else None
