"""How this package publishes: every wait has a bound, and the broker confirms.

A host's own publishing may do without both (a Redis that accepts and never answers blocks for
ever, RabbitMQ without confirmation can drop a message silently), so events, retries and dead
letters go over connections of their own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from time import monotonic
from typing import Any, NoReturn

from celery import Celery
from celery.exceptions import Reject, Retry
from kombu import Producer
from kombu.exceptions import OperationalError
from kombu.pools import ProducerPool

from .broker import REDIS_TRANSPORT, agree_on_queue

DEFAULT_TIMEOUT = 5.0

#: One more try on a fresh connection: a kept one may have been closed since.
RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}


#: A connection to RabbitMQ that confirmed nothing for so long is asked before a message goes over
#: it, in seconds.
ASK_AFTER = 0.1
#: The question: a message to no queue.
NOBODY = "webhooks_celery.nobody"
#: After so many seconds a blocked connection is given up for a new one, in case that RabbitMQ's
#: word that it goes on never came.
BLOCKED_FOR = 60.0


class BrokerFull(OperationalError):
    """RabbitMQ takes no messages at present, for memory or disk run short."""

    def __str__(self) -> str:
        return "RabbitMQ takes no messages at present; see its memory and disk alarms."


class _Alarm:
    """What RabbitMQ has said over one connection; called when it blocks it."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.over = False
        self.confirmed = -inf

    def __call__(self, reason: str) -> NoReturn:
        self.since = monotonic()
        raise BrokerFull

    def end(self) -> None:
        self.over = True


class ConfirmingProducer(Producer):
    """Publishes what RabbitMQ surely takes at once, or else surely never.

    * A message that reaches no queue is returned, then the queue is declared anew and the message
      sent again. RabbitMQ would confirm and drop it, if somebody deleted the queue after it was
      declared.
    * While memory or disk run short, RabbitMQ blocks a connection when it publishes, and takes the
      message afterwards, even if the connection was closed long ago. Each try would become one
      more copy. So a message to nobody goes first.
    """

    def publish(self, *args: Any, declare: Any = None, **options: Any) -> Any:
        options["mandatory"] = True
        if self.connection.transport.driver_type != "amqp":
            return super().publish(*args, declare=declare, **options)
        try:
            self.connection.ensure(self, self._ask, **RETRY_POLICY)()
            published = super().publish(*args, declare=self._undeclared(declare), **options)
        except self.connection.channel_errors:
            connection = self.connection
            connection.collect()  # forgets what was declared
            self.revive(connection)
            published = super().publish(*args, declare=declare, **options)
        self._alarm.confirmed = monotonic()
        return published

    @property
    def _alarm(self) -> _Alarm:
        connection = self.channel.connection
        if connection.on_blocked is None:
            connection.on_blocked = found = _Alarm()
            connection.on_unblocked = found.end
        alarm: _Alarm = connection.on_blocked
        return alarm

    def _ask(self) -> None:
        """Have RabbitMQ confirm that it takes messages.

        Raises:
            BrokerFull: it does not. The connection can be kept, to hear when it does again.
        """
        alarm, channel = self._alarm, self.channel
        if alarm.since is not None:
            with suppress(TimeoutError):
                while not alarm.over:
                    channel.connection.drain_events(timeout=0)
            if not alarm.over and monotonic() < alarm.since + BLOCKED_FOR:
                raise BrokerFull
            # It still owes a confirmation: ensure() takes a new one.
            raise channel.connection.recoverable_connection_errors[0]("was blocked")
        if monotonic() > alarm.confirmed + ASK_AFTER:
            channel.basic_publish(channel.prepare_message(b""), "", NOBODY)
            alarm.confirmed = monotonic()

    def _undeclared(self, declare: Any) -> Any:
        """Leave out what was declared; kombu does so too, for a tenth of a message's cost."""
        declared = self.connection.declared_entities
        return [each for each in declare or () if hash(each) not in declared]


class Publisher:
    """Producers of ``app`` with bounded waits; for any number of threads, safe after a fork."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._agreeing = threading.Lock()
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
                self._agreeing = threading.Lock()  # the other process may have held it
            pool = self._pool
        producer = pool.acquire(block=True, timeout=self.timeout)
        try:  # not "with", which closes the connection after an error
            if not self._agreed:
                self._agree(producer.connection)
            yield producer
        except Retry:  # is how Celery goes on after publishing
            raise
        except BaseException as error:
            # A confirmation that is still to come must not be taken for the next message's, and a
            # queue that is gone must be declared anew. Over a blocked connection we hear when
            # to go on.
            if not isinstance(reason_of(error), BrokerFull):
                producer.connection.collect()
            raise
        finally:
            producer.release()

    def _agree(self, connection: Any) -> None:
        connection.ensure_connection(**RETRY_POLICY)
        if not self._agreeing.acquire(timeout=self.timeout):
            raise TimeoutError(f"the broker took longer than {self.timeout:g} s")
        try:
            self._agreed = self._agreed or agree_on_queue(self._app, connection)
        finally:
            self._agreeing.release()

    def close(self) -> None:
        """Close the connections, those in use too; the next producer opens its own."""
        with self._lock:
            pool, self._pool = self._pool, None
            own = self._pid == os.getpid()
        if pool is not None and own:
            pool.connections.force_close_all()

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
            connection.transport_cls = REDIS_TRANSPORT  # it publishes at less cost than kombu's
        # Two at least: a replay reads over one connection and publishes over another.
        limit = max(2, self._app.conf.broker_pool_limit or 0)
        return ProducerPool(connection.Pool(limit), limit=limit, Producer=ConfirmingProducer)


def reason_of(error: BaseException) -> Any:
    """Return why publishing failed, also where Celery's ``retry`` has wrapped it."""
    return error.reason if isinstance(error, Reject) else error
