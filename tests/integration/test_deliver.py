"""``WebhookDelivery``: what becomes of a delivery, and what is said about it."""

import pickle

import pytest
from brokers import Relay, outcome

from webhooks_celery import emit
from webhooks_celery.errors import AttemptFailed, UnknownHook


@pytest.fixture
def hook(receiver):
    return {
        "id": "h",
        "events": ["*"],
        "url": receiver.url("/in"),
        "headers": {"Authorization": "Bearer s3cr3t-marker"},
        "backoffMs": 1,
    }


def test_a_delivered_result_is_small(hook, webhooks_file, make_app, run_worker):
    app = make_app(webhooks_config=webhooks_file(hook))
    run_worker(app)
    [delivery] = emit("E", "x" * 10_000, app=app)
    result = outcome(app, delivery)
    milliseconds = result.pop("milliseconds")
    assert isinstance(milliseconds, int)
    assert result == {"hook": "h", "event": "E", "status": 200, "attempt": 1}


def test_results_are_not_kept_where_a_host_does_not_want_them(
    hook, receiver, webhooks_file, make_app, run_worker
):
    app = make_app(webhooks_config=webhooks_file(hook), task_ignore_result=True)
    worker = run_worker(app)
    [delivery] = emit("E", app=app)
    receiver.wait_for(1)
    worker.pool.stop()  # waits for what runs
    assert app.AsyncResult(delivery).state == "PENDING"


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_delivery_is_tried_until_it_is_accepted(
    pool, hook, receiver, webhooks_file, make_app, run_worker, log
):
    receiver.answer("/in", 500, 301, 204)
    app = make_app(webhooks_config=webhooks_file(hook))
    run_worker(app, pool)
    [delivery] = emit("E", {"n": 1}, app=app)

    result = outcome(app, delivery)

    assert (result["attempt"], result["status"]) == (3, 204)
    assert len({(request.head, request.body) for request in receiver.requests}) == 1
    first, second = log.problems
    assert (first.levelname, first.webhook_attempt) == ("WARNING", 1)
    assert (second.levelname, second.webhook_attempt) == ("WARNING", 2)
    assert f"delivery {delivery}: hook h, attempt 1 of 3: HTTP 500" in first.getMessage()
    assert "Next attempt in 1 ms." in first.getMessage()
    assert "redirects are not followed" in second.getMessage()


def test_giving_up_is_one_error_and_a_retry_one_warning(
    hook, receiver, webhooks_file, make_app, run_worker, log, caplog
):
    receiver.answer("/in", 500)
    app = make_app(webhooks_config=webhooks_file(hook | {"retries": 2}))
    run_worker(app)
    [delivery] = emit("E", {"password": "p"}, app=app)

    error = outcome(app, delivery)

    assert (error.hook, error.attempt, error.attempts, error.status) == ("h", 2, 2, 500)
    assert len(receiver.requests) == 2
    warning, given_up = log.problems
    assert (warning.levelname, given_up.levelname) == ("WARNING", "ERROR")
    assert given_up.getMessage().endswith(
        "attempt 2 of 2: HTTP 500 Internal Server Error. Given up."
    )
    for attempt, record in enumerate((warning, given_up), start=1):
        assert record.webhook_delivery == delivery
        assert (record.webhook_hook, record.webhook_attempt) == ("h", attempt)
    assert not any(record.exc_info for record in caplog.records)  # Celery's own included
    assert "Traceback" not in caplog.text
    assert "s3cr3t" not in caplog.text
    assert "/in" not in caplog.text


def test_a_failure_survives_pickle_and_the_result_backend(
    hook, receiver, webhooks_file, make_app, run_worker
):
    receiver.answer("/in", 404)
    app = make_app(webhooks_config=webhooks_file(hook | {"retries": 1}))
    run_worker(app)
    [delivery] = emit("E", app=app)

    error = outcome(app, delivery)

    assert isinstance(error, AttemptFailed)
    assert str(error) == (
        "hook h, attempt 1 of 1: HTTP 404 Not Found; check the path of the hook's url."
    )
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        ({"id": "other"}, "not in "),
        ({"enabled": False}, "disabled in "),
        (None, "webhooks are off here (IMMICH_WEBHOOKS_CONFIG is not set)"),
    ],
)
def test_a_worker_that_does_not_know_the_hook_says_so(
    theirs, why, hook, receiver, webhooks_file, make_app, run_worker, log
):
    producer = make_app(webhooks_config=webhooks_file(hook))
    file = webhooks_file(hook | theirs, name="workers.json") if theirs else None
    app = make_app(webhooks_config=file)
    run_worker(app)
    [delivery] = emit("E", app=producer)

    error = outcome(app, delivery)

    assert isinstance(error, UnknownHook)
    assert error.hook == "h"
    assert error.why == (why + file if file else why)
    assert "give both the same one, restart them, then run celery webhooks dead replay." in str(
        error
    )
    assert receiver.requests == []
    *before, record = log.problems
    assert len(before) == (not theirs)  # that webhooks are off
    assert (record.levelname, record.exc_info) == ("ERROR", None)
    assert (record.webhook_delivery, record.webhook_hook) == (delivery, "h")


@pytest.fixture
def relay(broker_url):
    relay = Relay(broker_url)
    yield relay
    relay.cut()


@pytest.fixture
def half_cut_off(relay, broker_url, make_app, run_worker):
    """Runs a worker that reads from the broker but cannot write to it; mending the relay helps."""

    def run(**more):
        urls = {"broker_read_url": broker_url, "broker_write_url": relay.url}
        run_worker(make_app(**urls, **more))
        relay.cut()

    return run


def test_a_retry_that_the_broker_does_not_take_is_not_lost(
    hook, receiver, relay, half_cut_off, webhooks_file, make_app, log
):
    receiver.answer("/in", 500, 200)
    file = webhooks_file(hook)
    half_cut_off(webhooks_config=file)
    producer = make_app(webhooks_config=file)

    [delivery] = emit("E", app=producer)
    log.wait_for("reject requeue=True")
    relay.mend()

    assert outcome(producer, delivery)["status"] == 200
    assert len({(request.head, request.body) for request in receiver.wait_for(2)}) == 1


def test_a_fan_out_that_the_broker_does_not_take_is_not_lost(
    hook, receiver, relay, half_cut_off, webhooks_file, make_app, log
):
    file = webhooks_file(hook, hook | {"id": "other"})
    half_cut_off(webhooks_config=file)
    producer = make_app(webhooks_config=file)

    result = emit.delay("E", app=producer)
    log.wait_for("reject requeue=True")
    relay.mend()

    ids = outcome(producer, result.id)
    assert [each.headers["X-Immich-Delivery-Id"] for each in receiver.wait_for(2)] == ids
