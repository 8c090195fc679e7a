"""Dead letters: what is given up is kept, can be looked at, and goes out again once."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import datetime, timezone
from typing import Any

import pytest
from brokers import ON_REDIS, arguments, delete_queues, outcome, put, take, take_all
from celery import Celery
from kombu import Connection, Queue

from webhooks_celery import emit
from webhooks_celery.dead_letters import DeadLetters, DeadLettersBusy
from webhooks_celery.emitter import replay
from webhooks_celery.errors import AttemptFailed, UnknownHook
from webhooks_celery.model import DeadLetter
from webhooks_celery.tasks import MAX_LOST

QUORUM = {"task_default_queue_type": "quorum", "task_default_exchange_type": "topic"}

SECRET = "s3cr3t-marker"


@pytest.fixture
def hook(receiver) -> dict[str, Any]:
    return {
        "id": "h",
        "events": ["*"],
        "url": f"{receiver.url('/in')}?key={SECRET}",
        "headers": {"Authorization": f"Bearer {SECRET}"},
        "backoffMs": 1,
    }


def dead_letters(app: Celery) -> DeadLetters:
    return app.tasks["WebhookDelivery"].dead_letters


def parked(app: Celery) -> list[DeadLetter]:
    return list(dead_letters(app).browse())


def letter(number: int) -> DeadLetter:
    return DeadLetter(
        delivery=f"d{number:04}",
        hook="even" if number % 2 == 0 else "odd",
        event="E",
        timestamp="2025-11-20T12:34:56.789Z",
        payload='{"name":"Zoë"}',
        reason="HTTP 500",
        attempts=3,
        status=500,
        parked="2025-11-20T12:35:00.000Z",
    )


def everything(_: DeadLetter) -> bool:
    return True


# ---- what is parked


@pytest.fixture
def give_up(make_app, run_worker):
    """Sends a delivery through a worker and returns the letter that it becomes."""

    def run(producers: str, workers: str | None, expected: type[Exception]) -> DeadLetter:
        app = make_app(webhooks_config=workers)
        run_worker(app)
        [delivery] = emit("E", {"n": 1}, app=make_app(webhooks_config=producers))
        assert isinstance(outcome(app, delivery), expected)
        [found] = parked(app)
        assert found.delivery == delivery
        assert SECRET not in str(asdict(found))
        return found

    return run


def test_a_delivery_that_used_up_its_attempts(hook, receiver, webhooks_file, give_up):
    receiver.answer("/in", 500, 503)
    file = webhooks_file(hook | {"retries": 2})
    before = datetime.now(timezone.utc)

    found = give_up(file, file, AttemptFailed)

    assert found == DeadLetter(
        delivery=found.delivery,
        hook="h",
        event="E",
        timestamp=receiver.requests[0].headers["X-Immich-Timestamp"],
        payload='{"n":1}',
        reason="HTTP 503 Service Unavailable.",
        attempts=2,
        status=503,
        parked=found.parked,
    )
    when = datetime.fromisoformat(found.parked.replace("Z", "+00:00"))
    assert before.timestamp() - 0.001 <= when.timestamp() <= datetime.now().timestamp()


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        pytest.param({"id": "other"}, "h: not in ", id="unknown"),
        pytest.param({"enabled": False}, "h: disabled in ", id="disabled"),
        pytest.param(None, "h: webhooks are off here", id="off"),
    ],
)
def test_a_hook_that_the_worker_does_not_deliver_to(
    theirs, reason, hook, receiver, webhooks_file, give_up
):
    workers = webhooks_file(hook | theirs, name="workers.json") if theirs else None
    found = give_up(webhooks_file(hook), workers, UnknownHook)
    assert found.reason.startswith(reason)
    assert (found.hook, found.attempts, found.status) == ("h", 0, None)
    assert receiver.requests == []


@pytest.mark.parametrize("change", [{"url": "http://127.0.0.1:1/"}, {"method": "PUT"}])
def test_another_hook_at_the_same_place(change, hook, receiver, webhooks_file, give_up):
    del hook["id"]
    workers = webhooks_file(hook | change, name="workers.json")
    found = give_up(webhooks_file(hook), workers, UnknownHook)
    assert found.reason == f"webhook-1: changed: in {workers} it sends to another address"
    assert found.hook == "webhook-1"
    assert receiver.requests == []


def test_a_named_hook_is_delivered_as_the_worker_defines_it(
    hook, receiver, webhooks_file, make_app, run_worker
):
    moved = hook | {"url": receiver.url("/moved"), "method": "PUT"}
    app = make_app(webhooks_config=webhooks_file(moved, name="workers.json"))
    run_worker(app)
    [delivery] = emit("E", app=make_app(webhooks_config=webhooks_file(hook)))
    assert outcome(app, delivery)["status"] == 200
    [request] = receiver.requests
    assert (request.method, request.path) == ("PUT", "/moved")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"timestamp": None}, "TypeError: ", id="missing argument"),
        pytest.param({"colour": "red"}, "TypeError: ", id="unknown argument"),
        pytest.param({"seen": "x", "hook": ["h"]}, "TypeError: ", id="a fault of ours"),
    ],
)
def test_a_message_that_cannot_be_delivered(
    change, reason, hook, receiver, queue, webhooks_file, make_app, run_worker, log
):
    app = make_app(webhooks_config=webhooks_file(hook))
    [delivery] = emit("E", {"n": 1}, app=app)
    message = take(app, queue)
    kwargs = {k: v for k, v in (arguments(message) | change).items() if v is not None}
    app.tasks["WebhookDelivery"].apply_async(kwargs=kwargs, task_id=delivery)
    run_worker(app)

    outcome(app, delivery)

    [found] = parked(app)
    assert found.reason.startswith(reason)
    assert (found.delivery, found.hook, found.payload) == (delivery, str(kwargs["hook"]), '{"n":1}')
    assert (found.timestamp == "") == ("timestamp" in change)
    assert (found.attempts, found.status) == (0, None)
    assert SECRET not in str(asdict(found))
    assert receiver.requests == []


def test_a_task_that_is_called_parks_nothing(hook, receiver, webhooks_file, make_app):
    receiver.answer("/in", 500)
    app = make_app(webhooks_config=webhooks_file(hook | {"retries": 1}))
    kwargs = {"hook": "h", "event": "E", "timestamp": "", "payload": "null"}
    with pytest.raises(AttemptFailed):
        app.tasks["WebhookDelivery"](**kwargs)
    assert isinstance(app.tasks["WebhookDelivery"].apply(kwargs=kwargs).result, AttemptFailed)
    assert parked(app) == []


# ---- when parking fails


@contextmanager
def obstacle(broker_url: str, name: str):
    """Something else has the name of the dead-letter queue, and takes no letters."""
    with Connection(broker_url) as connection:
        if ON_REDIS:
            connection.default_channel.client.set(name, "not a list")
        else:
            full = {"x-max-length": 0, "x-overflow": "reject-publish"}
            Queue(name, queue_arguments=full)(connection.default_channel).declare()
        yield
        if ON_REDIS:
            connection.default_channel.client.delete(name)
        else:
            connection.default_channel.queue_delete(name)


def test_what_cannot_be_parked_stays_with_the_broker(
    broker_url, hook, queue, webhooks_file, make_app, run_worker, log
):
    app = make_app(webhooks_config=None)
    producer = make_app(webhooks_config=webhooks_file(hook))
    with obstacle(broker_url, f"{queue}.dead"):
        [delivery] = emit("E", {"n": 1}, app=producer)
        run_worker(app)
        log.wait_for(f"delivery {delivery} cannot be parked: ")
        log.wait_for("reject requeue=True")
    assert isinstance(outcome(app, delivery), UnknownHook)
    [found] = parked(app)
    assert (found.delivery, found.payload) == (delivery, '{"n":1}')


@pytest.mark.redis
def test_a_queue_of_dead_letters_that_is_none_is_told(broker_url, queue, make_app):
    with obstacle(broker_url, f"{queue}.dead"), pytest.raises(Exception, match="WRONGTYPE"):
        parked(make_app())


def test_letters_go_on_to_be_parked_after_their_queue_was_deleted(broker_url, queue, make_app):
    app = make_app()
    dead_letters(app).park(letter(1))
    delete_queues(broker_url, [f"{queue}.dead"])
    dead_letters(app).park(letter(2))
    assert parked(app) == [letter(2)]


# ---- browse and take


@pytest.fixture
def app(make_app) -> Celery:
    """An app with three dead letters."""
    app = make_app()
    dead_letters(app).park(*map(letter, range(3)))
    return app


def test_looking_takes_nothing_away(app):
    assert [parked(app) for _ in range(3)] == [[letter(0), letter(1), letter(2)]] * 3
    assert next(dead_letters(app).browse()) == letter(0)
    assert len(parked(app)) == 3


def test_there_are_none_at_first(make_app):
    app = make_app()
    assert parked(app) == []
    assert list(dead_letters(app).take(everything, print)) == []


def test_letters_are_taken_in_order_and_those_not_wanted_stay_in_theirs(make_app):
    app = make_app()
    letters = [letter(number) for number in range(1200)]  # more than one page
    dead_letters(app).park(*letters)
    acted: list[DeadLetter] = []

    taken = list(dead_letters(app).take(lambda each: each.hook == "even", acted.append))

    assert taken == acted == letters[::2]
    assert parked(app) == letters[1::2]
    assert list(dead_letters(app).take(everything, acted.append)) == letters[1::2]
    assert parked(app) == []


def test_a_take_that_fails_loses_nothing(app):
    def act(each: DeadLetter) -> None:
        if each == letter(1):
            raise ConnectionError

    taking = dead_letters(app).take(everything, act)
    assert next(taking) == letter(0)
    with pytest.raises(ConnectionError):
        next(taking)
    assert parked(app) == [letter(1), letter(2)]
    assert list(dead_letters(app).take(everything, print)) == [letter(1), letter(2)]


def test_a_take_may_be_left_early(app):
    taking = dead_letters(app).take(everything, print)
    next(taking)
    taking.close()
    assert list(dead_letters(app).take(everything, print)) == [letter(1), letter(2)]


def test_letters_parked_during_a_take_wait_for_the_next_one(app):
    """As those of replayed deliveries that fail again at once; else it might never end."""
    again = dead_letters(app)
    taken = list(
        again.take(everything, lambda each: again.park(replace(each, reason="failed again")))
    )
    assert taken == [letter(0), letter(1), letter(2)]
    assert parked(app) == [replace(each, reason="failed again") for each in taken]


def test_two_who_take_at_once_never_get_the_same_letter(app, make_app):
    first = dead_letters(app).take(everything, print)
    taken = [next(first)]
    other = dead_letters(make_app()).take(everything, print)
    if ON_REDIS:
        with pytest.raises(DeadLettersBusy, match="try again when that is done"):
            next(other)
    else:
        taken += other
    taken += first
    assert sorted(taken, key=lambda each: each.delivery) == [letter(0), letter(1), letter(2)]
    assert parked(app) == []


def test_many_who_take_at_once_never_get_the_same_letter(make_app):
    app = make_app()
    letters = [letter(number) for number in range(200)]
    dead_letters(app).park(*letters)
    taken: list[DeadLetter] = []
    together = threading.Barrier(3)

    def take_them() -> None:
        mine = dead_letters(make_app())
        together.wait()
        with suppress(DeadLettersBusy):
            taken.extend(mine.take(everything, lambda _: None))

    threads = [threading.Thread(target=take_them) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    taken += dead_letters(app).take(everything, lambda _: None)
    assert sorted(taken, key=lambda each: each.delivery) == letters


# ---- replay


def test_a_replayed_delivery_keeps_its_id_and_has_all_its_attempts(
    hook, receiver, webhooks_file, make_app, run_worker
):
    receiver.answer("/in", 500, 500, 500, 200)
    app = make_app(webhooks_config=webhooks_file(hook | {"retries": 2}))
    run_worker(app)
    [delivery] = emit("E", {"n": 1}, app=app)
    assert isinstance(outcome(app, delivery), AttemptFailed)
    app.AsyncResult(delivery).forget()

    list(dead_letters(app).take(everything, lambda each: replay(app, each)))

    assert outcome(app, delivery)["attempt"] == 2
    assert parked(app) == []
    assert len({(request.head, request.body) for request in receiver.wait_for(4)}) == 1


@pytest.mark.parametrize("broker_pool_limit", [None, 0, 1, 10])
def test_a_replay_needs_no_more_connections_than_it_gets(broker_pool_limit, queue, make_app):
    app = make_app(broker_pool_limit=broker_pool_limit)
    dead_letters(app).park(letter(1))
    list(dead_letters(app).take(everything, lambda each: replay(app, each)))
    assert [message.headers["id"] for message in take_all(app, queue)] == ["d0001"]


def test_a_replayed_hook_is_still_only_trusted_at_the_same_address(
    hook, receiver, webhooks_file, make_app, run_worker
):
    del hook["id"]
    workers = make_app(webhooks_config=webhooks_file(hook | {"method": "PUT"}))
    run_worker(workers)
    producer = make_app(webhooks_config=webhooks_file(hook, name="producers.json"))
    [delivery] = emit("E", app=producer)
    for _ in range(2):
        assert isinstance(outcome(workers, delivery), UnknownHook)
        [found] = parked(workers)
        assert "changed" in found.reason
        workers.AsyncResult(delivery).forget()
        list(dead_letters(workers).take(everything, lambda each: replay(workers, each)))
    assert isinstance(outcome(workers, delivery), UnknownHook)
    assert receiver.requests == []


# ---- deliveries whose worker was lost


def come_back(app: Celery, queue: str) -> None:
    """Do what a worker does that takes a message and dies."""
    with app.connection_for_read() as connection:
        bound = app.amqp.queues[queue](connection.default_channel)
        bound.declare()
        assert bound.get() is not None
        if ON_REDIS:  # or its visibility timeout would have to pass
            connection.default_channel.qos.restore_unacked_once()


@pytest.mark.parametrize("kind", [{}] if ON_REDIS else [{}, QUORUM])
def test_a_delivery_that_came_back_is_attempted_and_told(
    kind, hook, receiver, queue, webhooks_file, make_app, run_worker, log
):
    app = make_app(webhooks_config=webhooks_file(hook), task_default_queue=queue, **kind)
    [delivery] = emit("E", {"n": 1}, app=app)
    come_back(app, queue)
    run_worker(app)

    assert outcome(app, delivery)["attempt"] == 1

    assert len(receiver.requests) == 1
    [record] = log.problems
    assert record.getMessage() == (
        f"delivery {delivery} came back (1 of {MAX_LOST}): its worker ended or lost the broker. "
        "If an attempt was under way, the receiver sees it twice."
    )
    assert (record.levelname, record.webhook_delivery) == ("WARNING", delivery)


def test_a_delivery_that_is_lost_again_and_again_is_parked(
    hook, receiver, queue, webhooks_file, make_app, run_worker, log
):
    app = make_app(webhooks_config=webhooks_file(hook))
    [delivery] = emit("E", {"n": 1}, app=app)
    message = take(app, queue)
    kwargs = arguments(message) | {"lost": MAX_LOST - 1}
    app.tasks["WebhookDelivery"].apply_async(kwargs=kwargs, task_id=delivery, retries=1)
    come_back(app, queue)
    run_worker(app)

    log.wait_for(f"delivery {delivery} came back ({MAX_LOST} of {MAX_LOST})")
    [emitted] = emit("E", app=app)  # is delivered after the other one was dealt with
    outcome(app, emitted)

    [found] = parked(app)
    assert (found.delivery, found.payload, found.attempts) == (delivery, '{"n":1}', 1)
    assert found.reason == f"its worker was lost {MAX_LOST} times"
    assert [each.headers["X-Immich-Delivery-Id"] for each in receiver.requests] == [emitted]


def test_only_losses_of_the_same_attempt_are_counted(
    hook, receiver, queue, webhooks_file, make_app, run_worker
):
    receiver.answer("/in", 500, 200)
    app = make_app(webhooks_config=webhooks_file(hook))
    [delivery] = emit("E", app=app)
    message = take(app, queue)
    kwargs = arguments(message) | {"lost": MAX_LOST - 1}
    app.tasks["WebhookDelivery"].apply_async(kwargs=kwargs, task_id=delivery)
    run_worker(app)
    assert outcome(app, delivery)["attempt"] == 2
    assert parked(app) == []


def test_a_copy_of_a_delivery_is_delivered_under_the_same_id(
    hook, receiver, queue, webhooks_file, make_app, run_worker
):
    app = make_app(webhooks_config=webhooks_file(hook))
    emit("E", app=app)
    message = take(app, queue)
    put(app, queue, message)
    put(app, queue, message)
    run_worker(app)
    first, second = receiver.wait_for(2)
    assert (first.head, first.body) == (second.head, second.body)
