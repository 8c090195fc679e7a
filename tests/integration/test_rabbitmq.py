"""RabbitMQ only: classic and quorum queues, and deliveries that wait in the broker."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest
from brokers import ON_REDIS, Relay, outcome, settings_for, take
from celery import signals
from kombu import Connection, Queue

from webhooks_celery import emit
from webhooks_celery.broker import is_quorum
from webhooks_celery.errors import EmitError

__test__ = not ON_REDIS

CLASSIC = {"task_default_queue_type": "classic", "task_default_exchange_type": "direct"}
QUORUM = {"task_default_queue_type": "quorum", "task_default_exchange_type": "topic"}


@pytest.fixture
def settings(settings, queue):
    """One queue for all, as in the package's own app: it is what the defaults are about."""
    return {**settings, "task_default_queue": queue}


both_ways = pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(CLASSIC, QUORUM, id="classic exists"),
        pytest.param(QUORUM, CLASSIC, id="quorum exists"),
    ],
)


@pytest.fixture
def file(receiver, webhooks_file) -> str:
    receiver.answer("/in", 500, 500, 200)
    return webhooks_file({"id": "h", "events": ["*"], "url": receiver.url("/in"), "backoffMs": 1})


@both_ways
def test_who_comes_second_takes_the_queue_that_is_there(
    first, second, file, make_app, run_worker, log
):
    [early] = emit("E", app=make_app(webhooks_config=file, **first))
    app = make_app(webhooks_config=file, **second)
    [late] = emit("E", app=app)
    run_worker(app)

    assert outcome(app, early)["status"] == outcome(app, late)["status"] == 200

    told = [record for record in log.problems if "exists as a classic queue" in record.getMessage()]
    assert bool(told) == (first is CLASSIC)


@both_ways
def test_so_does_who_was_there_first_but_had_no_broker(
    first, second, broker_url, file, queue, make_app
):
    relay = Relay(broker_url)
    relay.cut()
    patient = make_app(
        webhooks_config=file, webhooks_emit_timeout=1, **second, **settings_for(relay.url)
    )
    with pytest.raises(EmitError):
        emit("E", app=patient)
    [early] = emit("E", app=make_app(webhooks_config=file, **first))
    relay.mend()
    [late] = emit("E", app=patient)
    relay.cut()
    reader = make_app(**first)
    assert [take(reader, queue).headers["id"] for _ in range(2)] == [early, late]


def test_a_queue_of_another_kind_is_told(broker_url, file, queue, make_app):
    with Connection(broker_url) as connection:
        Queue(queue, max_priority=5)(connection.default_channel).declare()
    with pytest.raises(EmitError, match=r"PRECONDITION_FAILED - inequivalent arg .*x-max-priority"):
        emit("E", app=make_app(webhooks_config=file))


@pytest.mark.parametrize(
    ("wait", "in_broker"), [(1, 0), (300, 0), (999, 0), (1000, 1), (1500, 1), (2300, 2)]
)
def test_a_delivery_waits_in_the_broker_for_whole_seconds_and_is_due_to_the_millisecond(
    wait, in_broker, receiver, queue, webhooks_file, make_app, run_worker
):
    hook = {"events": ["*"], "url": receiver.answer("/in", 500, 200), "backoffMs": wait}
    app = make_app(webhooks_config=webhooks_file(hook), **QUORUM)
    run_worker(app)
    with published() as messages:
        [delivery] = emit("E", app=app)
        assert outcome(app, delivery)["attempt"] == 2

    first, second = (request.arrived for request in receiver.requests)
    _, (exchange, routing_key, due) = messages
    assert first <= due - timedelta(milliseconds=wait) <= due <= second
    if in_broker:
        bits = routing_key.removesuffix(f".{queue}").split(".")
        assert (exchange, int("".join(bits), 2)) == ("celery_delayed_27", in_broker)
    else:
        assert exchange == queue


@contextmanager
def published():
    """Exchange, routing key and due time of the deliveries that are published meanwhile."""
    found = []

    def note(exchange, routing_key, headers, **_):
        due = headers["eta"] and datetime.fromisoformat(headers["eta"])
        found.append((getattr(exchange, "name", exchange), routing_key, due))

    signals.after_task_publish.connect(note, sender="WebhookDelivery")
    yield found
    signals.after_task_publish.disconnect(note, sender="WebhookDelivery")


@pytest.mark.parametrize("named", [False, True], ids=["default queue", "queue of another name"])
def test_the_packages_own_app_lets_deliveries_wait_in_the_broker(
    named, settings, queue, new_queue, receiver, webhooks_file, make_app, own_worker
):
    if named:
        settings["task_default_queue"] = new_queue()
    hook = {"events": ["*"], "url": receiver.answer("/in", 500, 200), "backoffMs": 1000}
    file = webhooks_file(hook)
    own_worker(file, "-P", "solo")
    app = make_app(webhooks_config=file)
    [delivery] = emit("E", app=app)
    assert outcome(app, delivery)["attempt"] == 2
    assert is_quorum(app.amqp.queues[queue])  # as it was found


def test_a_worker_that_boots_without_a_broker_lets_deliveries_wait_there_too(
    broker_url, receiver, webhooks_file, make_app, own_worker
):
    """The broker knows nothing of the queue when the worker gets to it at last."""
    hook = {"events": ["*"], "url": receiver.answer("/in", 500, 200), "backoffMs": 1000}
    relay = Relay(broker_url)
    relay.cut()
    file = webhooks_file(hook)
    worker = own_worker(file, "-P", "solo", ready=False, CELERY_BROKER_URL=relay.url)
    worker.wait_for_line("Trying again in")
    relay.mend()
    worker.wait_for_line(" ready.")
    app = make_app(webhooks_config=file, **QUORUM)
    [delivery] = emit("E", app=app)
    assert outcome(app, delivery)["attempt"] == 2
    relay.cut()
