"""The package's own Redis transport: nothing in nobody's keeping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from queue import Empty
from typing import Any

import pytest
from kombu import Connection, Queue
from kombu.asynchronous import Hub
from redis import Redis

pytestmark = pytest.mark.redis

Connect = Callable[..., Any]


@pytest.fixture
def connect(broker_url: str, queue: str) -> Iterator[Connect]:
    """Open a connection with the transport under test and keys of its own."""
    from webhooks_celery.redis_transport import Transport

    opened: list[Any] = []

    def make(**options: Any) -> Any:
        keys = {"unacked_key": f"{queue}.unacked", "unacked_index_key": f"{queue}.unacked_index"}
        connection = Connection(
            broker_url,
            transport=Transport,
            transport_options={"waiting_queues": [queue], **keys, **options},
        )
        opened.append(connection)
        return connection

    yield make
    for connection in opened:
        connection.release()


def publish(connection: Any, queue: str, *bodies: str, **headers: str) -> None:
    with connection.Producer() as producer:
        for body in bodies:
            producer.publish(body, routing_key=queue, headers=headers, declare=[Queue(queue)])


def consume(connection: Any, queue: str, **options: Any) -> tuple[list[Any], Any]:
    got: list[Any] = []
    consumer = connection.Consumer(
        Queue(queue), callbacks=[lambda _, message: got.append(message)], **options
    )
    consumer.consume()
    return got, consumer


def drain(connection: Any, got: list[Any], count: int) -> None:
    for _ in range(20):  # each waits for a second at most
        if len(got) >= count:
            return
        with suppress(TimeoutError, Empty):
            connection.drain_events(timeout=1)
    pytest.fail(f"{len(got)} of {count} messages came")


@pytest.mark.parametrize("prefix", ["", "prefixed:"])
def test_a_message_is_consumed_acknowledged_and_gone(
    connect: Connect, broker_url: str, queue: str, prefix: str
) -> None:
    connection = connect(global_keyprefix=prefix)
    client = Redis.from_url(broker_url)
    publish(connection, queue, "one")
    got, _ = consume(connection, queue)
    drain(connection, got, 1)
    assert client.hlen(f"{prefix}{queue}.unacked") == 1
    got[0].ack()
    assert got[0].payload == "one"
    assert client.hlen(f"{prefix}{queue}.unacked") == 0
    assert client.zcard(f"{prefix}{queue}.unacked_index") == 0


def test_it_is_noted_before_the_worker_has_read_it(connect: Connect, queue: str) -> None:
    """The request to fetch goes out, and the process dies."""
    connection = connect(visibility_timeout=0)
    client = connect().default_channel.client
    publish(connection, queue, "one")
    consumed, consumer = consume(connection, queue)
    channel = consumer.channel
    channel.connection.cycle.on_poll_start()
    assert channel.client.connection.can_read(timeout=10)  # the answer is here, nobody reads it
    assert client.llen(queue) == 0
    assert client.hlen(f"{queue}.unacked") == 1

    channel.client.connection.disconnect()
    channel.qos.restore_visible(interval=1)
    drain(connection, consumed, 1)
    assert consumed[0].delivery_info["redelivered"]


def test_what_is_held_is_not_given_to_others_however_long_it_takes(
    connect: Connect, queue: str
) -> None:
    """Unless its worker does not come back to say that it holds it."""
    connection, other = connect(visibility_timeout=1), connect(visibility_timeout=1)
    publish(connection, queue, "one")
    got, _ = consume(connection, queue)
    drain(connection, got, 1)
    elsewhere, consumer = consume(other, queue)
    for _ in range(3):  # longer than the timeout, all in all
        with suppress(TimeoutError, Empty):
            connection.drain_events(timeout=0.5)
        consumer.channel.qos.restore_visible(interval=1)
    assert consumer.channel.client.llen(queue) == 0

    drain(other, elsewhere, 1)
    assert elsewhere[0].delivery_info["redelivered"]
    got[0].ack()
    assert consumer.channel.client.hlen(f"{queue}.unacked") == 0


def test_what_was_given_back_is_no_longer_renewed(connect: Connect, queue: str) -> None:
    connection = connect()
    publish(connection, queue, "one")
    got, consumer = consume(connection, queue, prefetch_count=1)
    drain(connection, got, 1)
    consumer.cancel()
    got[0].reject(requeue=True)
    elsewhere, other = consume(connect(), queue)
    drain(other.connection, elsewhere, 1)
    client, tag = other.channel.client, elsewhere[0].delivery_tag
    client.zadd(f"{queue}.unacked_index", {tag: 1})
    consumer.channel.qos.renew()
    assert client.zscore(f"{queue}.unacked_index", tag) == 1
    other.channel.qos.renew()
    assert client.zscore(f"{queue}.unacked_index", tag) > 1


def test_who_waits_at_an_empty_queue_is_woken_and_takes_nothing(
    connect: Connect, queue: str
) -> None:
    connection = connect(polling_interval=10)
    got, _ = consume(connection, queue)
    for _ in range(2):  # looks, then waits
        with pytest.raises((TimeoutError, Empty)):
            connection.drain_events(timeout=0.1)
    publish(connect(), queue, "one")
    publish(connect(), queue, "two")
    drain(connection, got, 2)
    assert [message.payload for message in got] == ["one", "two"]


def test_without_acknowledgement_nothing_is_noted(connect: Connect, queue: str) -> None:
    connection = connect()
    publish(connection, queue, "one")
    got, consumer = consume(connection, queue, no_ack=True)
    drain(connection, got, 1)
    assert consumer.channel.client.hlen(f"{queue}.unacked") == 0


def test_what_is_not_due_waits_in_redis(connect: Connect, queue: str) -> None:
    connection = connect()
    soon = datetime.now(timezone.utc) + timedelta(seconds=3)
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    publish(connection, queue, "later", eta=later.isoformat())
    publish(connection, queue, "soon", eta=soon.isoformat())
    publish(connection, queue, "now")
    bound = Queue(queue)(connection.default_channel)
    assert bound.queue_declare().message_count == 3
    got, _ = consume(connection, queue)
    drain(connection, got, 2)
    assert [message.payload for message in got] == ["now", "soon"]
    assert bound.purge() == 1


def test_several_queues_get_their_turn(connect: Connect, queue: str, new_queue: Any) -> None:
    other = new_queue()
    connection = connect()
    got: list[Any] = []
    consumer = connection.Consumer(
        [Queue(queue), Queue(other)], callbacks=[lambda _, message: got.append(message)]
    )
    consumer.consume()
    for _ in range(3):
        with pytest.raises((TimeoutError, Empty)):
            connection.drain_events(timeout=0.1)
    publish(connect(), other, "here")
    drain(connection, got, 1)
    publish(connect(), queue, "there")
    drain(connection, got, 2)
    assert [message.payload for message in got] == ["here", "there"]


def test_an_acknowledgement_after_the_connection_is_gone_is_a_connection_error(
    connect: Connect, queue: str
) -> None:
    connection = connect()
    publish(connection, queue, "one")
    got, _ = consume(connection, queue)
    drain(connection, got, 1)
    errors = connection.connection_errors
    connection.release()
    got[0].channel._disconnect_pools()  # else open again: the message was given back
    with pytest.raises(errors):
        got[0].ack()


def test_it_fetches_at_once_what_there_is_room_for(connect: Connect, queue: str) -> None:
    connection = connect()
    client = connect().default_channel.client
    publish(connection, queue, *"12345")
    got, _ = consume(connection, queue, prefetch_count=3)
    connection.drain_events(timeout=10)
    assert [message.payload for message in got] == ["1", "2", "3"]
    assert (client.llen(queue), client.hlen(f"{queue}.unacked")) == (2, 3)
    got[1].ack()
    connection.drain_events(timeout=10)
    assert [message.payload for message in got] == ["1", "2", "3", "4"]
    assert (client.llen(queue), client.hlen(f"{queue}.unacked")) == (1, 3)


def test_in_an_event_loop_one_request_acknowledges_and_fetches(
    connect: Connect, queue: str
) -> None:
    connection = connect()
    client = connect().default_channel.client
    publish(connection, queue, *"1234")
    got, _ = consume(connection, queue, prefetch_count=2)
    connection.register_with_event_loop(hub := Hub())
    rounds = hub.create_loop()

    def go_on(until: Callable[[], bool]) -> None:
        for _ in range(20):  # each waits for a second at most
            if until():
                return
            next(rounds)
        pytest.fail("not within 20 rounds")

    go_on(lambda: len(got) == 2)
    calls = client.info("commandstats")["cmdstat_eval"]["calls"]
    for message in got[:]:
        message.ack()
    assert client.hlen(f"{queue}.unacked") == 2  # not yet
    go_on(lambda: len(got) == 4)
    assert client.hlen(f"{queue}.unacked") == 2
    assert client.info("commandstats")["cmdstat_eval"]["calls"] == calls + 1
    for message in got[2:]:
        message.ack()
    go_on(lambda: client.hlen(f"{queue}.unacked") == 0)
    assert client.zcard(f"{queue}.unacked_index") == 0


def test_what_was_acknowledged_last_is_forgotten_when_the_connection_is_closed(
    connect: Connect, queue: str
) -> None:
    connection = connect()
    client = connect().default_channel.client
    publish(connection, queue, *"12")
    got, _ = consume(connection, queue)
    connection.register_with_event_loop(Hub())
    drain(connection, got, 2)
    got[0].ack()
    connection.release()
    assert client.hlen(f"{queue}.unacked") == 0
    assert client.llen(queue) == 1  # the other one is back


def test_if_a_message_ends_the_worker_those_fetched_with_it_go_back(
    connect: Connect, queue: str
) -> None:
    connection = connect()
    publish(connection, queue, *"123")
    got: list[Any] = []

    def end(_: object, message: Any) -> None:
        got.append(message)
        raise SystemExit

    connection.Consumer(Queue(queue), callbacks=[end]).consume()
    with pytest.raises(SystemExit):
        connection.drain_events(timeout=10)
    assert [message.payload for message in got] == ["1"]
    other = connect()
    rest, _ = consume(other, queue)
    drain(other, rest, 2)
    assert [message.payload for message in rest] == ["2", "3"]


def test_a_message_that_is_none_does_not_stop_those_behind_it(connect: Connect, queue: str) -> None:
    connection = connect()
    client = connect().default_channel.client
    client.lpush(queue, '{"body": "what is this?"}')
    publish(connection, queue, "two")
    got, _ = consume(connection, queue)
    with pytest.raises(KeyError, match="properties"):
        connection.drain_events(timeout=10)
    drain(connection, got, 1)
    assert [message.payload for message in got] == ["two"]


def test_a_worker_with_nothing_to_do_outlasts_a_full_server(connect: Connect, queue: str) -> None:
    """And what it holds stays its own."""
    connection = connect(visibility_timeout=4)
    client = connect().default_channel.client
    publish(connection, queue, "held")
    got, consumer = consume(connection, queue)
    drain(connection, got, 1)
    before = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", 1)
    try:
        for _ in range(4):  # looks, waits, is refused, waits
            with pytest.raises((TimeoutError, Empty)):
                connection.drain_events(timeout=2)
    finally:
        client.config_set("maxmemory", before)
    consumer.channel.qos.restore_visible(interval=1)
    publish(connect(), queue, "one")
    drain(connection, got, 2)
    assert [message.payload for message in got] == ["held", "one"]
