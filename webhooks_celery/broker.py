"""How this package publishes: every wait has a bound, and the broker confirms.

A host's own publishing may do without both (a Redis that accepts and never answers blocks for
ever, RabbitMQ without confirmation can drop a message silently), so events, retries and dead
letters go over connections of their own.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from math import ceil
from typing import Any

from celery import Celery
from celery.exceptions import Retry
from kombu import Producer
from kombu.pools import ProducerPool
from kombu.transport import TRANSPORT_ALIASES

from .model import DEFAULT_QUEUE, Hook
from .plan import MARGIN, Limits

logger = logging.getLogger("webhooks_celery")

DEFAULT_TIMEOUT = 5.0

#: The two kinds of RabbitMQ queue. Only with a topic exchange can messages wait in the broker.
QUORUM: dict[str, Any] = {"arguments": {"x-queue-type": "quorum"}, "type": "topic"}
CLASSIC: dict[str, Any] = {"arguments": None, "type": "direct"}

_REDIS_TRANSPORT = f"{__package__}.redis_transport:Transport"

#: One more try on a fresh connection: a kept one may have been closed since.
RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}


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


class ConfirmingProducer(Producer):
    """Has a message that reaches no queue returned, then declares the queue anew and tries again.

    RabbitMQ would confirm and drop it, if somebody deleted the queue after it was declared.
    """

    def publish(self, *args: Any, declare: Any = None, **options: Any) -> Any:
        options["mandatory"] = True
        try:
            return super().publish(*args, declare=self._undeclared(declare), **options)
        except self.connection.channel_errors:
            connection = self.connection
            connection.collect()  # forgets what was declared
            self.revive(connection)
            return super().publish(*args, declare=declare, **options)

    def _undeclared(self, declare: Any) -> Any:
        """Leave out what was declared; kombu does so too, for a tenth of a message's cost.

        Only where the broker tells that a queue is gone.
        """
        connection = self.connection
        if connection.transport.driver_type != "amqp":
            return declare
        return [each for each in declare or () if hash(each) not in connection.declared_entities]


class Publisher:
    """Producers of ``app`` with bounded waits; for any number of threads, safe after a fork."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._pool: Any = None
        self._pid = 0
        self._agreed = False

    @property
    def timeout(self) -> float:
        """The longest time that publishing an event may take, in seconds."""
        configured = self._app.conf.get("webhooks_emit_timeout")
        return DEFAULT_TIMEOUT if configured is None else float(configured)

    @contextmanager
    def producer(self) -> Iterator[Any]:
        """Lend a producer; give it to ``publish`` or ``apply_async`` with ``RETRY_POLICY``.

        None where tasks run eagerly: nothing is published then.
        """
        if self._app.conf.task_always_eager:
            yield None
            return
        with self._lock:
            if self._pool is None or self._pid != os.getpid():
                self._pool, self._pid, self._agreed = self._new_pool(), os.getpid(), False
        with self._pool.acquire(block=True, timeout=self.timeout) as producer:
            try:
                if not self._agreed:
                    self._agree(producer.connection)
                yield producer
            except Retry:  # is how Celery goes on after publishing
                raise
            except BaseException:
                # A confirmation that is still to come must not be taken for the next message's,
                # and a queue that is gone must be declared anew.
                producer.connection.collect()
                raise

    def _agree(self, connection: Any) -> None:
        connection.ensure_connection(**RETRY_POLICY)
        with self._lock:
            self._agreed = agree_on_queue(self._app, connection)

    def close(self) -> None:
        """Close the connections; the next producer opens its own."""
        with self._lock:
            if self._pool is not None and self._pid == os.getpid():
                self._pool.force_close_all()
            self._pool = None

    def _new_pool(self) -> Any:
        # Half of the time for a connection that turns out to be dead, half for its successor.
        seconds = self.timeout / 2
        options = {
            "redis": {"socket_timeout": seconds, "socket_connect_timeout": seconds},
            "amqp": {"confirm_publish": True, "read_timeout": seconds, "write_timeout": seconds},
        }
        kind = self._app.connection_for_write().transport.driver_type
        connection = self._app.connection_for_write(
            connect_timeout=seconds, transport_options=options.get(kind, {})
        )
        if connection.transport_cls in ("redis", "rediss"):
            connection.transport_cls = _REDIS_TRANSPORT  # it publishes at less cost than kombu's
        # Two at least: a replay reads over one connection and publishes over another.
        limit = max(2, self._app.conf.broker_pool_limit or 0)
        return ProducerPool(connection.Pool(limit), limit=limit, Producer=ConfirmingProducer)


def use_redis_transport() -> None:
    """Let all of this process speak to Redis through a transport that loses nothing it fetches.

    For processes that run workers, before they connect; see ``redis_transport`` for the reasons.
    """
    TRANSPORT_ALIASES["redis"] = TRANSPORT_ALIASES["rediss"] = _REDIS_TRANSPORT


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
        waits_in_broker=quorum or getattr(transport, "waits_in_broker", False),
        prefetch=conf.worker_prefetch_multiplier,
        time_limit=min(time_limits, default=None),
        margin=MARGIN if margin is None else float(margin),
    )


def fit_redis(app: Celery, hooks: Iterable[Hook]) -> None:
    """Make deliveries of a lost worker come back as soon as these hooks' timetables allow.

    For apps with ``webhooks_fit_broker``; changes the visibility timeout of connections that are
    opened from now on, and looks for lost deliveries every ten seconds (every
    ``webhooks_fit_margin`` seconds if that is less). With this package's Redis transport, lets
    deliveries wait in Redis.
    """
    limits = limits_of(app)
    if limits.kind != "redis" or not app.conf.get("webhooks_fit_broker"):
        return
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "visibility_timeout": ceil(limits.visibility_timeout_for(hooks)),
        "unacked_restore_interval": min(10, limits.margin),
        "unacked_restore_throttle": 1,
        "waiting_queues": [webhooks_queue(app)],
    }
