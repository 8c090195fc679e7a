"""Each of Celery's pools, in real worker processes."""

import os
import signal
from threading import Event
from uuid import uuid4

import pytest
from brokers import ON_REDIS, ask, outcome, take, take_all
from psutil import Process
from recorder import Request

from webhooks_celery import emit
from webhooks_celery.errors import AttemptFailed
from webhooks_celery.tasks import MAX_LOST


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_a_pool_delivers_retries_and_gives_up(pool, own_worker, receiver, webhooks_file, make_app):
    """One at a time, so that the receiver which never answers would hold up all others."""
    receiver.answer("/flaky", 503, 200)
    receiver.answer("/down", 500)
    receiver.answer("/silent", receiver.never)
    file = webhooks_file(
        *(
            {
                "id": name,
                "events": ["*"],
                "url": receiver.url(f"/{name}"),
                "timeoutMs": 400 if name == "silent" else 60_000,
                "retries": 2,
                "backoffMs": 1,
            }
            for name in ("silent", "flaky", "down", "fine")
        )
    )
    worker = own_worker(file, "-P", pool, "-c", "1")
    app = make_app(webhooks_config=file)

    ids = emit("E", app=app)
    silent, flaky, down, fine = (outcome(app, delivery) for delivery in ids)

    assert isinstance(silent, AttemptFailed)
    assert "attempt 2 of 2: no complete answer within 400 ms" in str(silent)
    assert (flaky["status"], flaky["attempt"]) == (200, 2)
    assert isinstance(down, AttemptFailed)
    assert (down.attempt, down.status) == (2, 500)
    assert (fine["status"], fine["attempt"]) == (200, 1)
    counts = {name: len(receiver.to(f"/{name}")) for name in ("silent", "flaky", "down", "fine")}
    assert counts == {"silent": 2, "flaky": 2, "down": 2, "fine": 1}
    assert worker.stop() == 0
    assert "Traceback" not in worker.output


def test_a_soft_time_limit_is_a_failed_attempt(own_worker, receiver, webhooks_file, make_app):
    receiver.answer("/in", receiver.never, 200)
    hook = {"id": "h", "events": ["*"], "url": receiver.url("/in"), "backoffMs": 1}
    file = webhooks_file(hook)
    worker = own_worker(file, "-P", "prefork", "-c", "1", "--soft-time-limit", "0.5")
    app = make_app(webhooks_config=file)
    [delivery] = emit("E", app=app)
    assert outcome(app, delivery)["attempt"] == 2
    assert "attempt 1 of 3: the worker's soft time limit came before timeoutMs" in worker.output


def test_a_killed_child_loses_nothing(own_worker, receiver, webhooks_file, make_app):
    """Killed as the kernel does when memory runs out."""
    receiver.answer("/in", receiver.never, 200)
    file = webhooks_file({"events": ["*"], "url": receiver.url("/in")})
    node = f"{uuid4()}@test"
    worker = own_worker(file, "-P", "prefork", "-c", "1", "-n", node)
    app = make_app(webhooks_config=file)
    [delivery] = emit("E", app=app)
    receiver.wait_for(1)

    [child] = ask(app, node, "stats")["pool"]["processes"]
    os.kill(child, signal.SIGKILL)

    first, second = receiver.wait_for(2)
    assert (first.head, first.body) == (second.head, second.body)
    assert outcome(app, delivery)["status"] == 200
    assert worker.stop() == 0


def test_a_delivery_that_kills_its_child_each_time_is_parked(
    own_worker, receiver, webhooks_file, make_app
):
    """And the one behind it, which the same child had to make, is delivered."""

    def kill(_: Request) -> bytes:
        for child in Process(worker.pid).children():
            child.kill()
        return b""

    receiver.answer("/poison", kill)
    poison, fine = (
        {"id": name, "events": ["*"], "url": receiver.url(f"/{name}"), "timeoutMs": 60_000}
        for name in ("poison", "fine")
    )
    file = webhooks_file(poison, fine)
    worker = own_worker(file, "-P", "prefork", "-c", "1")
    app = make_app(webhooks_config=file)

    poisonous, healthy = emit("E", app=app)

    worker.wait_for_line(f"delivery {poisonous} came back ({MAX_LOST} of {MAX_LOST})")
    assert outcome(app, healthy)["status"] == 200
    assert worker.stop() == 0
    [letter] = app.tasks["WebhookDelivery"].dead_letters.browse()
    assert letter.delivery == poisonous
    assert letter.reason == f"its worker was lost {MAX_LOST} times"
    assert len(receiver.to("/poison")) == MAX_LOST


def test_a_stopped_worker_finishes_its_attempt_and_leaves_retries_in_the_queue(
    own_worker, receiver, queue, webhooks_file, make_app
):
    stopping = Event()

    def slow(_: Request) -> bytes:
        stopping.wait()
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    # What waits in RabbitMQ nobody can see until it is due; left behind, it would block its queues.
    patient = {"timeoutMs": 60_000, "backoffMs": 600_000 if ON_REDIS else 10_000}
    file = webhooks_file(
        {"events": ["Retry"], "url": receiver.answer("/down", 500), **patient},
        {"events": ["Finish"], "url": receiver.answer("/slow", slow), **patient},
    )
    worker = own_worker(file, "-P", "prefork", "-c", "1")
    app = make_app(webhooks_config=file)

    [retried] = emit("Retry", app=app)
    worker.wait_for_line(f"[{retried}] retry: Retry in")
    [finished] = emit("Finish", app=app)
    receiver.wait_for(1, "/slow")
    worker.ask_to_stop()
    worker.wait_for_line("Warm shutdown")
    stopping.set()

    assert worker.wait() == 0
    assert outcome(app, finished)["status"] == 200
    [message] = take_all(app, queue) if ON_REDIS else [take(app, queue)]
    assert (message.headers["id"], message.headers["retries"]) == (retried, 1)
    assert take_all(app, queue) == []
