"""While the broker is away: events are refused in time or kept on disk, deliveries stay."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from uuid import UUID

import pytest
from brokers import (
    ON_REDIS,
    Relay,
    arguments,
    delete_queues,
    moved,
    outcome,
    settings_for,
    take,
    take_all,
)
from celery import Celery, signals
from kombu.exceptions import OperationalError
from recorder import Request

from webhooks_celery import emit
from webhooks_celery.emitter import flush_spool
from webhooks_celery.errors import EmitError
from webhooks_celery.model import DeadLetter

QUORUM = {"task_default_queue_type": "quorum", "task_default_exchange_type": "topic"}
KINDS = [{}] if ON_REDIS else [{}, QUORUM]

pytestmark = pytest.mark.timeout(30)  # every wait has a bound


@pytest.fixture
def two(receiver, webhooks_file) -> str:
    return webhooks_file(
        *(
            {"id": name, "events": ["*"], "url": receiver.url(f"/{name}"), "backoffMs": 1}
            for name in "ab"
        )
    )


@pytest.fixture
def nowhere(request, broker_url) -> Iterator[str]:
    """The URL of a broker that is not there: connections are refused or never answered."""
    with socket.socket() as peer:
        peer.bind(("127.0.0.1", 0))
        if getattr(request, "param", "refuses") != "refuses":
            peer.listen()
        yield moved(broker_url, peer.getsockname()[1])


refused_or_not_answered = pytest.mark.parametrize(
    "nowhere", ["refuses", "accepts and never answers"], indirect=True
)


@pytest.fixture
def away(nowhere, two, make_app) -> Callable[..., Celery]:
    """Makes apps whose broker is away."""

    def make(**more) -> Celery:
        return make_app(
            **{"webhooks_config": two, "webhooks_emit_timeout": 1} | settings_for(nowhere) | more
        )

    return make


@pytest.fixture
def spool(tmp_path) -> str:
    return str(tmp_path / "spool")


@pytest.fixture
def relay(broker_url) -> Iterator[Relay]:
    relay = Relay(broker_url)
    yield relay
    relay.cut()


@pytest.fixture
def lose_the_broker(relay) -> Iterator[None]:
    """The line is cut as soon as one delivery has passed."""

    def cut(**_):
        relay.cut()

    signals.after_task_publish.connect(cut, sender="WebhookDelivery")
    yield
    signals.after_task_publish.disconnect(cut, sender="WebhookDelivery")


# ---- without a spool


@refused_or_not_answered
def test_emit_says_what_was_not_queued(away):
    with pytest.raises(
        EmitError, match=r"2 of 2 deliveries were not queued: .*Emit again"
    ) as raised:
        emit("E", event_id="x", app=away())
    assert raised.value.queued == ()
    assert len(raised.value.not_queued) == 2


@refused_or_not_answered
def test_so_does_delay(away):
    with pytest.raises(EmitError, match="not queued: ") as raised:
        emit.delay("E", app=away())
    assert raised.value.not_queued == (raised.value.event_id,)
    assert UUID(raised.value.event_id)


@refused_or_not_answered
@pytest.mark.timeout(15)
def test_without_a_setting_the_wait_is_bounded_too(away):
    with pytest.raises(EmitError):
        emit("E", app=away(webhooks_emit_timeout=None))


# ---- with one


@refused_or_not_answered
def test_events_wait_on_disk_and_are_sent_with_the_same_ids(away, spool, queue, make_app, log):
    app = away(webhooks_spool=spool)
    assert flush_spool(app) == 0  # nothing waits, so nobody is asked
    ids = emit("E", {"n": 1}, app=app)
    delayed = emit.delay("E", {"n": 2}, app=app)
    assert [record.getMessage().partition(":")[0] for record in log.problems] == [
        "spooled 2, the broker is away",
        "spooled 1, the broker is away",
    ]
    with pytest.raises(OperationalError):
        flush_spool(app)  # still away

    healthy = make_app(webhooks_spool=spool)
    assert flush_spool(healthy) == 3

    messages = take_all(healthy, queue)
    assert [message.headers["id"] for message in messages] == [*ids, delayed.id]
    assert [arguments(message)["payload"] for message in messages] == ['{"n":1}'] * 2 + ['{"n":2}']
    assert flush_spool(healthy) == 0


def test_an_event_that_is_emitted_again_waits_once(away, spool, make_app):
    app = away(webhooks_spool=spool)
    assert emit("E", event_id="x", app=app) == emit("E", event_id="x", app=app)
    assert flush_spool(make_app(webhooks_spool=spool)) == 2


def test_a_worker_that_boots_sends_them(away, spool, two, receiver, make_app, run_worker, log):
    app = away(webhooks_spool=spool)
    ids = emit("E", app=app)
    delayed = emit.delay("E", event_id="x", app=app)

    healthy = make_app(webhooks_config=two, webhooks_spool=spool)
    run_worker(healthy)

    log.wait_for("3 spooled messages sent")
    ids += outcome(healthy, delayed.id)
    requests = receiver.wait_for(4)
    assert sorted(each.headers["X-Immich-Delivery-Id"] for each in requests) == sorted(ids)


def test_a_running_worker_sends_them(away, spool, two, receiver, make_app, run_worker):
    run_worker(make_app(webhooks_config=two, webhooks_spool=spool))
    ids = emit("E", app=away(webhooks_spool=spool))
    requests = receiver.wait_for(2)
    assert sorted(each.headers["X-Immich-Delivery-Id"] for each in requests) == sorted(ids)


def test_what_was_queued_before_the_broker_went_is_not_spooled(
    relay, lose_the_broker, spool, two, queue, make_app
):
    app = make_app(webhooks_config=two, webhooks_spool=spool, **settings_for(relay.url))
    first, second = emit("E", app=app)
    healthy = make_app(webhooks_spool=spool)
    assert take(healthy, queue).headers["id"] == first
    assert take_all(healthy, queue) == []
    assert flush_spool(healthy) == 1
    assert take(healthy, queue).headers["id"] == second


def test_a_flush_that_loses_the_broker_keeps_the_rest(
    away, relay, lose_the_broker, spool, queue, make_app
):
    ids = emit("E", app=away(webhooks_spool=spool))
    with pytest.raises(OperationalError):
        flush_spool(make_app(webhooks_spool=spool, **settings_for(relay.url)))
    healthy = make_app(webhooks_spool=spool)
    assert flush_spool(healthy) == 1
    assert [message.headers["id"] for message in take_all(healthy, queue)] == ids


def test_a_spool_that_cannot_be_written_is_told_with_the_brokers_reason(away, tmp_path):
    (tmp_path / "file").touch()
    app = away(webhooks_spool=str(tmp_path / "file" / "spool"))
    for call in (emit, emit.delay):
        with pytest.raises(EmitError) as raised:
            call("E", app=app)
        reason, _, spool_reason = raised.value.reason.partition("; and ")
        assert reason.startswith("OperationalError: ")
        assert "spool.sqlite3 cannot be used: " in spool_reason


def test_a_full_spool_is_told(away, spool, make_app, two):
    app = away(webhooks_spool=spool, webhooks_spool_max_bytes=100_000)
    assert len(emit("E", "x" * 20_000, app=app)) == 2
    with pytest.raises(EmitError, match="has reached webhooks_spool_max_bytes") as raised:
        emit("E", "x" * 40_000, app=app)
    assert len(raised.value.not_queued) == 2
    assert flush_spool(make_app(webhooks_spool=spool)) == 2


def test_an_event_with_celerys_options_is_not_spooled_without_them(away, spool):
    with pytest.raises(EmitError):
        emit.apply_async(("E",), {"app": away(webhooks_spool=spool)}, countdown=60)
    assert not Path(spool).exists()


# ---- connections that were closed meanwhile


def test_a_kept_connection_that_was_closed_does_no_harm(relay, two, queue, make_app):
    app = make_app(webhooks_config=two, **settings_for(relay.url))
    ids = emit("E", app=app)
    dead = app.tasks["WebhookDelivery"].dead_letters
    letter = DeadLetter(
        delivery="d",
        hook="h",
        event="E",
        timestamp="",
        payload="1",
        reason="",
        attempts=1,
        parked="",
    )
    for _ in range(3):
        relay.cut()
        relay.mend()
        ids += emit("E", app=app)
        relay.cut()
        relay.mend()
        dead.park(letter)
    assert len(list(dead.browse())) == 3
    assert [message.headers["id"] for message in take_all(make_app(), queue)] == ids


@pytest.mark.parametrize("kind", KINDS)
def test_events_reach_a_queue_that_was_deleted_meanwhile(kind, broker_url, two, queue, make_app):
    app = make_app(webhooks_config=two, task_default_queue=queue, **kind)
    emit("E", app=app)
    delete_queues(broker_url, [queue])
    ids = emit("E", app=app)
    assert [message.headers["id"] for message in take_all(app, queue)] == ids


# ---- retries


def test_a_retry_that_gets_no_connection_is_not_lost(two, receiver, make_app, run_worker, log):
    taken = Event()

    def fail(_: Request) -> bytes:
        taken.wait()
        return b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n"

    receiver.answer("/a", fail, 200)
    app = make_app(webhooks_config=two, broker_pool_limit=2, webhooks_emit_timeout=1)
    publisher = app.tasks["WebhookDelivery"].publisher
    run_worker(app)
    first, _ = emit("E", app=app)
    with publisher.producer(), publisher.producer():
        taken.set()
        log.wait_for("reject requeue=True")
    assert outcome(app, first)["status"] == 200
    assert len({(request.head, request.body) for request in receiver.to("/a")}) == 1
