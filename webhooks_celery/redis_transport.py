"""kombu's Redis transport, changed so that no message is ever in nobody's keeping.

kombu fetches with BRPOP and notes afterwards, in a second request, that the message is now in a
worker's hands. Whatever comes between the two loses the message for good: the worker is killed,
the server is killed or stops answering, the connection breaks. Here one script does both, for as
many messages as the worker has room for, and forgets those that were acknowledged meanwhile: under
load one request does the work of many.

A script cannot wait for a message. So when it finds none, the same connection waits with
``BLMOVE queue queue RIGHT RIGHT``, which leaves the list as it is and only tells when there is
something in it; every worker that waits is told, and the script decides which of them gets it.

A worker goes on telling the server which messages it holds, so the visibility timeout runs out for
those of a worker that was lost, however long a task takes or waits. It does not while a solo pool
works or the worker is being stopped.

Messages that may run only later wait in Redis too, in a sorted set beside their queue, and not in
a worker's memory: those of the queues named in the transport option ``waiting_queues``, for only
workers with this transport look there.

And a message that is acknowledged after its connection was lost raises a connection error, which
Celery logs; kombu's ``AttributeError`` ends the worker. A server whose memory is full still gives
messages out and takes them back, so that delivering them makes room again.

Needs Redis 7 or Valkey. The keys are otherwise kombu's, so that an application may emit through
kombu's own transport.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from queue import Empty
from time import monotonic, time
from typing import Any

from kombu.transport import redis, virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from .plan import AHEAD
from .redis_scripts import FETCH, FORGET, RENEW, RESTORE

#: How long to wait at one queue, in seconds.
LONGEST = 1.0
#: How long to wait at one queue while there are others to look into, in seconds.
TURN = 0.1

#: The most messages fetched, and the most forgotten, by one script.
BATCH = 100


class QoS(redis.QoS):
    """Does not note again what was noted when it was fetched; forgets and gives back by script."""

    def append(self, message: Any, delivery_tag: str) -> None:
        if delivery_tag == self.channel.noted:
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        virtual.QoS.ack(self, delivery_tag)
        self.channel.forget(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if requeue:
            self.restore_by_tag(delivery_tag, leftmost=True)
            virtual.QoS.ack(self, delivery_tag)
        else:
            self.ack(delivery_tag)

    def renew(self) -> None:
        """Let the visibility timeout begin anew for what is held."""
        if tags := [tag for tag in list(self._delivered) if tag not in self._dirty]:
            with self.channel.conn_or_acquire() as client:
                self.channel.run(client, RENEW, [self.unacked_index_key], [time(), *tags])

    def restore_unacked_once(self, stderr: Any = None) -> None:
        with suppress(Exception):  # what is held goes back in any case
            self.channel.forget_acknowledged()
        super().restore_unacked_once(stderr)

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        channel = self.channel
        with channel.conn_or_acquire(client) as client:
            note = client.hget(self.unacked_key, tag)
            lists: list[str] = []
            message: dict[str, Any] = {}
            if note is not None:
                message, exchange, routing_key = loads(bytes_to_str(note))
                message.get("headers", {})["redelivered"] = True
                message["properties"]["delivery_info"]["redelivered"] = True
                priority = channel._get_message_priority(message, reverse=False)
                lists = [
                    channel._q_for_pri(queue, priority)
                    for queue in channel._lookup(exchange, routing_key)
                ]
            channel.run(
                client,
                RESTORE,
                [self.unacked_index_key, self.unacked_key, *lists],
                [tag, "LPUSH" if leftmost else "RPUSH", dumps(message)],
            )


class Channel(redis.Channel):
    """Fetches with a script where kombu's does it with BRPOP; see there for when."""

    QoS = QoS
    from_transport_options = (
        *(name for name in redis.Channel.from_transport_options if name != "ack_emulation"),
        "waiting_queues",
    )

    waiting_queues: tuple[str, ...] = ()
    noted: str | None = None  #: the message being delivered, if the script has noted it

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._unacknowledged: set[str] = set()
        self._asked: list[tuple[str, str]] = []  # queue and list of each that the script looks into
        self._empty = False  # the script found nothing: wait
        self._acknowledged: list[str] = []  # tags that the server still knows
        self._forgetting: list[str] = []  # those of them that the script was sent with
        self._busy = False  # forgetting
        self._full = False  # the server's memory was, for BLMOVE
        self._pooled: Any = None
        self._renewed = monotonic()
        super().__init__(*args, **kwargs)

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        (self._unacknowledged.add if no_ack else self._unacknowledged.discard)(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        self._asked = [
            (queue, self._q_for_pri(queue, priority))
            for priority in self.priority_steps
            for queue in queues
        ]
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self._in_poll.send_command(*(self._wait() if self._empty else self._fetch()))

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Lend a client; kombu makes a new one each time, which costs as much as a command."""
        if client is None:
            if self._pooled is None or self._pooled.connection_pool is not self.pool:
                self._pooled = self._create_client()
            client = self._pooled
        yield client

    def run(self, client: Any, script: str, keys: list[str], arguments: list[Any]) -> Any:
        """Run a script; kombu prefixes the keys of the commands it uses, and not of this one."""
        prefixed = [f"{self.global_keyprefix}{key}" for key in keys]
        return client.execute_command("EVAL", script, len(keys), *prefixed, *arguments)

    def forget(self, tag: str) -> None:
        """Forget an acknowledged message: with the next round of the event loop, if there is one.

        A worker whose pool has no event loop (gevent) may not come back here for long.
        """
        self._acknowledged.append(tag)
        connection = self.connection
        if connection is None or not connection.cycle.in_event_loop:
            self.forget_acknowledged()

    def forget_acknowledged(self) -> None:
        """Forget what was acknowledged since the last time.

        One greenlet at a time, for all the others: kombu has ten connections in its pool.
        """
        if self._busy:
            return
        self._busy = True
        try:
            while tags := self._take_acknowledged():
                try:
                    with self.conn_or_acquire() as client:
                        self.run(client, FORGET, [self.unacked_index_key, self.unacked_key], tags)
                except BaseException:
                    self._acknowledged += tags
                    raise
        finally:
            self._busy = False

    def renew(self) -> None:
        """Say what is held, four times within the visibility timeout."""
        if monotonic() - self._renewed > self.visibility_timeout / 4:
            self._renewed = monotonic()
            self.qos.renew()

    def _take_acknowledged(self) -> list[str]:
        tags = self._acknowledged[:BATCH]
        del self._acknowledged[: len(tags)]
        return tags

    def _fetch(self) -> tuple[Any, ...]:
        keys = [self.unacked_index_key, self.unacked_key, *(key for _, key in self._asked)]
        noting = ["0" if queue in self._unacknowledged else "1" for queue, _ in self._asked]
        # Celery's worker_disable_prefetch replaces one of the two questions only.
        single = "can_consume" in vars(self.qos)
        room = 1 if single else self.qos.can_consume_max_estimate()
        now = time()
        self._forgetting = self._take_acknowledged()
        return (
            *("EVAL", FETCH, len(keys)),
            *(f"{self.global_keyprefix}{key}" for key in keys),
            *(now, now + AHEAD, BATCH if room is None else min(room, BATCH)),
            *noting,
            *self._forgetting,
        )

    def _wait(self) -> tuple[Any, ...]:
        queue, key = self._asked[0]
        timeout = min(self.brpop_timeout or LONGEST, LONGEST)
        if len(self.active_queues) > 1:
            timeout = min(timeout, TURN)
            self._queue_cycle.rotate(queue)
        key = f"{self.global_keyprefix}{key}"
        if self._full:  # this is allowed then, and finds nothing
            self._full = False
            return "BRPOP", f"{key}:nobody", timeout
        return "BLMOVE", key, key, "RIGHT", "RIGHT", timeout

    def _brpop_read(self, **options: Any) -> bool:
        waited = self._empty
        self._empty = False
        connection = self.client.connection
        try:
            found = self.client.parse_response(
                connection, "BLMOVE" if waited else "EVAL", **options
            )
        except redis.exceptions.OutOfMemoryError:  # of BLMOVE only: the script may run
            found, self._full = None, True
        except BaseException as error:
            self._remember()
            if isinstance(error, self.connection_errors):
                connection.disconnect()
            raise
        else:
            self._forgetting = []
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if waited or not found:
            self._empty = not waited
            raise Empty
        lists, messages = found[::2], found[1::2]
        self._hand_out(
            deque(
                (self._asked[abs(number) - 1][0], number > 0, each)
                for number, each in zip(lists, messages)
            )
        )
        return True

    def _remember(self) -> None:
        """Forget again what may not have been forgotten with the script; twice does no harm."""
        self._acknowledged += self._forgetting
        self._forgetting = []

    def _on_connection_disconnect(self, connection: Any) -> None:
        if self._in_poll is connection:
            self._remember()
        super()._on_connection_disconnect(connection)

    def _hand_out(self, fetched: deque[tuple[str, bool, bytes]]) -> None:
        """Give messages to the worker; if one of them ends it, those after it go back."""
        try:
            while fetched:
                queue, noted, message = fetched.popleft()
                self._queue_cycle.rotate(queue)
                payload = _payload(message)
                self.noted = payload["properties"]["delivery_tag"] if noted else None
                self.connection._deliver(payload, queue)
                self.forget_acknowledged()  # the solo pool has run the task by now
        finally:
            self.noted = None
            for _, _, message in reversed(fetched):
                with suppress(Exception):  # then the visibility timeout brings it back
                    self.qos.restore_by_tag(_payload(message)["properties"]["delivery_tag"])

    def _connparams(self, asynchronous: bool = False) -> Any:
        if self.connection is None or self.connection.client is None:
            raise redis.exceptions.ConnectionError("the connection was closed")
        return super()._connparams(asynchronous)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        due = _eta(message.get("headers") or {}) if queue in self.waiting_queues else 0.0
        if due <= time() + AHEAD:
            super()._put(queue, message, **kwargs)
            return
        key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        with self.conn_or_acquire() as client:
            client.zadd(_waiting(key), {dumps(message): due})

    def _size(self, queue: str) -> int:
        with self.conn_or_acquire() as client:
            # kombu prefixes the keys of the commands it uses; this one is not among them.
            keys = [f"{self.global_keyprefix}{_waiting(key)}" for key in self._keys(queue)]
            waiting: int = sum(client.zcard(key) for key in keys)
        return super()._size(queue) + waiting

    def _purge(self, queue: str) -> int:
        size = self._size(queue)
        super()._purge(queue)
        self._forget_waiting(queue)
        return size

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        super()._delete(queue, *args, **kwargs)
        self._forget_waiting(queue)

    def _forget_waiting(self, queue: str) -> None:
        with self.conn_or_acquire() as client:
            for key in self._keys(queue):
                client.delete(_waiting(key))

    def _keys(self, queue: str) -> list[str]:
        return [self._q_for_pri(queue, priority) for priority in self.priority_steps]


class Poller(redis.MultiChannelPoller):
    """Forgets what was acknowledged and renews what is held, in the rounds of the event loop."""

    in_event_loop = False

    def on_poll_start(self) -> None:
        super().on_poll_start()
        for channel in self._channels:
            channel.forget_acknowledged()
            channel.renew()


class Transport(redis.Transport):
    """For ``redis://`` and ``rediss://`` once ``broker.use_redis_transport`` is called."""

    Channel = Channel
    # A server whose memory is full: to try again later, not to end the worker.
    connection_errors = (
        *redis.Transport.connection_errors,
        redis.exceptions.OutOfMemoryError,
    )
    waits_in_broker = True  #: asked by this package

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        self.cycle.in_event_loop = True
        super().register_with_event_loop(connection, loop)


def _waiting(key: str) -> str:
    return f"{key}:waiting"


def _payload(message: bytes) -> dict[str, Any]:
    """Parse a message; kombu's parser is slow, and needed for what its encoder has marked only."""
    payload: dict[str, Any] = (
        loads(bytes_to_str(message)) if b"__type__" in message else json.loads(message)
    )
    return payload


def _eta(headers: Mapping[str, Any]) -> float:
    """Return when the task in a message may run, in seconds since 1970; 0 for at once."""
    try:
        return datetime.fromisoformat(headers["eta"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return 0.0
