"""What there is to know of brokers: the webhooks queue, how long messages may be held, waits."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

from .model import DEFAULT_QUEUE, Hook
from .plan import MARGIN, Limits

logger = logging.getLogger("webhooks_celery")

#: The two kinds of RabbitMQ queue. Only with a topic exchange can messages wait in the broker.
QUORUM: dict[str, Any] = {"arguments": {"x-queue-type": "quorum"}, "type": "topic"}
CLASSIC: dict[str, Any] = {"arguments": None, "type": "direct"}

#: For kombu.
REDIS_TRANSPORT = f"{__package__}.redis_transport:Transport"


def webhooks_queue(app: Celery) -> str:
    """Return the name of the queue that deliveries travel through."""
    return str(app.conf.get("webhooks_queue") or DEFAULT_QUEUE)


def is_quorum(queue: Any) -> bool:
    """Whether a kombu queue is defined as a quorum queue."""
    return (queue.queue_arguments or {}).get("x-queue-type") == "quorum"


def exact_wait(options: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return options of ``retry`` that keep a countdown exact on quorum queues.

    Celery lets a message wait in RabbitMQ for whole seconds and refuses less than one. The header
    makes the worker that gets it then wait for the rest.
    """
    countdown = options.get("countdown") or 0
    if countdown <= 0:
        return options
    eta = (now + timedelta(seconds=countdown)).isoformat()
    return {
        **options,
        "countdown": countdown if countdown >= 1 else 0,
        "headers": {**(options.get("headers") or {}), "eta": eta},
    }


def serializer_of(app: Celery) -> str:
    """Return JSON, or what the host uses where its workers refuse JSON and drop the message.

    The arguments are strings and numbers, which every serializer leaves as they are.
    """
    accepted = {"json", "application/json"} & set(app.conf.accept_content)
    return "json" if accepted else str(app.conf.task_serializer)


def use_redis_transport() -> None:
    """Let all of this process speak to Redis through a transport that loses nothing it fetches.

    For processes that run workers, before they connect; see ``redis_transport`` for the reasons.
    """
    TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = REDIS_TRANSPORT


def agree_on_queue(app: Celery, connection: Any) -> bool:
    """Declare the webhooks queue; where RabbitMQ has it with another type, take that one.

    An emitting app and a worker's app may be configured differently, and RabbitMQ refuses whoever
    comes second. Does nothing on other brokers, nor while the broker is away.

    Args:
        app: its definition of the queue is adapted.
        connection: a kombu connection of that app.

    Returns:
        whether the queue can be used as it is defined now.
    """
    if connection.transport.driver_type != "amqp":
        return True
    queue = app.amqp.queues[webhooks_queue(app)]
    own = {"arguments": queue.queue_arguments, "type": queue.exchange.type}
    other = CLASSIC if is_quorum(queue) else QUORUM
    for definition in (own, other):
        queue.queue_arguments, queue.exchange.type = definition["arguments"], definition["type"]
        try:
            with connection.channel() as channel:
                queue(channel).declare()
        except connection.channel_errors:
            continue
        except connection.recoverable_connection_errors:
            return False
        if definition is CLASSIC:
            logger.warning(
                "the queue %s exists as a classic queue: deliveries that wait for their next "
                "attempt wait in a worker's memory. To let them wait in RabbitMQ, empty and delete "
                "the queue, then restart the workers before anything emits.",
                queue.name,
            )
        return True
    queue.queue_arguments, queue.exchange.type = own["arguments"], own["type"]
    return False  # publishing will say why


def limits_of(app: Celery) -> Limits:
    """Return what ``app``'s configuration says about holding messages."""
    conf = app.conf
    transport = app.connection_for_read().transport
    kind = transport.driver_type
    quorum = kind == "amqp" and is_quorum(app.amqp.queues[webhooks_queue(app)])
    margin = conf.get("webhooks_fit_margin")
    time_limits = [t for t in (conf.task_time_limit, conf.task_soft_time_limit) if t is not None]
    return Limits(
        kind=kind,
        visibility_timeout=float(conf.broker_transport_options.get("visibility_timeout", 3600)),
        waits_in_broker=quorum or _waits_in_redis(app, transport),
        prefetch=conf.worker_prefetch_multiplier,
        time_limit=min(time_limits, default=None),
        margin=MARGIN if margin is None else float(margin),
    )


def fit_redis(app: Celery, hooks: Iterable[Hook]) -> None:
    """Make deliveries of a lost worker come back as soon as these hooks' timetables allow.

    For apps with ``webhooks_fit_broker``; changes the visibility timeout of connections that are
    opened from now on (a longer one that was configured stays), and looks for lost deliveries every
    ten seconds (every ``webhooks_fit_margin`` seconds if that is less). With this package's Redis
    transport, lets deliveries wait in Redis.
    """
    limits = limits_of(app)
    if limits.kind != "redis" or not app.conf.get("webhooks_fit_broker"):
        return
    queue, configured = webhooks_queue(app), app.conf.broker_transport_options
    needed = ceil(limits.visibility_timeout_for(hooks))
    app.conf.broker_transport_options = {
        # What workers of other apps hold in the same database is not for us to give back: it may
        # be held for as long as their own timeout says.
        "unacked_key": f"{queue}:unacked",
        "unacked_index_key": f"{queue}:unacked_index",
        "unacked_mutex_key": f"{queue}:unacked_mutex",
        **configured,
        "visibility_timeout": max(needed, configured.get("visibility_timeout", 0)),
        "unacked_restore_interval": min(10, limits.margin),
        "unacked_restore_throttle": 1,
        # Who publishes uses our transport anyway; a worker with kombu's would never look there.
        **({"waiting_queues": [queue]} if limits.waits_in_broker else {}),
    }


def _waits_in_redis(app: Celery, transport: Any) -> bool:
    """Whether deliveries wait in Redis: this process has our transport, and its queue is named."""
    named = app.conf.broker_transport_options.get("waiting_queues", ())
    wanted = app.conf.get("webhooks_fit_broker") or webhooks_queue(app) in named
    return bool(wanted and getattr(transport, "waits_in_broker", False))
