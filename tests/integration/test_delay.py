"""``emit.delay``: the event is fixed when it is called, its hooks are found by a worker."""

from datetime import datetime, timedelta, timezone
from uuid import uuid4

import pytest
from brokers import arguments, eta, outcome, put, take, take_all

from webhooks_celery import emit


@pytest.fixture
def hooks(receiver, webhooks_file) -> str:
    return webhooks_file(
        *({"id": name, "events": ["*"], "url": receiver.url(f"/{name}")} for name in "ab")
    )


def test_time_id_and_payload_are_those_of_the_call(hooks, receiver, make_app, run_worker):
    producer = make_app(webhooks_config="not/absolute")  # a producer's file is not even read
    before = datetime.now(timezone.utc)
    payload = {"name": "Zoë", "tags": ["a"]}
    event_id = str(uuid4())
    result = emit.delay("PersonCreate", payload, event_id=event_id, app=producer)
    after = datetime.now(timezone.utc)
    payload["tags"].append("added after the call")

    app = make_app(webhooks_config=hooks)
    run_worker(app)

    assert result.id == event_id
    ids = outcome(app, event_id)
    receiver.wait_for(2)
    assert [receiver.to(path)[0].headers["X-Immich-Delivery-Id"] for path in ("/a", "/b")] == ids
    assert len({request.headers["X-Immich-Timestamp"] for request in receiver.requests}) == 1
    for request in receiver.requests:
        assert b'"payload":{"name":"Zo\xc3\xab","tags":["a"]}}' in request.body
        emitted = datetime.fromisoformat(
            request.headers["X-Immich-Timestamp"].replace("Z", "+00:00")
        )
        assert before - timedelta(milliseconds=1) < emitted <= after
    assert emit("PersonCreate", event_id=event_id, app=app) == ids


@pytest.mark.parametrize("spool", [True, False])
def test_an_event_that_no_hook_wants_ends_at_the_worker(
    spool, queue, tmp_path, webhooks_file, receiver, make_app, run_worker
):
    more = {"webhooks_spool": str(tmp_path / "spool")} if spool else {}
    file = webhooks_file({"events": ["Other"], "url": receiver.url("/in")})
    app = make_app(webhooks_config=file, **more)
    run_worker(app)
    result = emit.delay("E", app=app)
    assert outcome(app, result.id) == []
    assert not (tmp_path / "spool").exists()


def test_a_worker_whose_webhooks_are_off_says_what_it_drops(make_app, run_worker, log):
    app = make_app()
    run_worker(app)
    result = emit.delay("E", app=app)
    assert outcome(app, result.id) == []
    log.wait_for(f"event {result.id} is dropped: webhooks are off: IMMICH_WEBHOOKS_CONFIG is not")


def test_only_the_event_travels(queue, make_app):
    app = make_app()
    result = emit.delay("E", {"n": 1}, server=True, app=app)
    [message] = take_all(app, queue)
    timestamp = arguments(message)["timestamp"]
    assert arguments(message) == {
        "event": "E",
        "payload": '{"n":1}',
        "timestamp": timestamp,
        "event_id": result.id,
        "server": True,
    }
    assert '{"n":1}' not in str(message.headers)


def test_celerys_options_work(queue, make_app):
    app = make_app()
    before = datetime.now(timezone.utc)
    emit.apply_async(("E",), {"app": app}, countdown=60, priority=3)
    message = take(app, queue)
    assert before < eta(message) - timedelta(seconds=60) < datetime.now(timezone.utc)
    assert message.properties["priority"] == 3


def test_a_fan_out_that_runs_twice_gives_the_same_ids(
    hooks, queue, new_queue, receiver, make_app, run_worker
):
    app = make_app(webhooks_config=hooks)
    emit.delay("PersonCreate", app=app)
    message = take(app, queue)
    at_worker = new_queue()
    put(app, at_worker, message)
    put(app, at_worker, message)
    run_worker(app, queues=[at_worker])

    deliveries = [take(app, queue) for _ in range(4)]
    by_hook = {(arguments(each)["hook"], each.headers["id"]) for each in deliveries}
    assert len(by_hook) == 2
    assert len({str(arguments(each)) for each in deliveries}) == 2


def test_an_event_that_cannot_be_fanned_out_stays_queued(hooks, queue, make_app, own_worker):
    app = make_app(webhooks_config=hooks)
    emit.delay("E", app=app)
    [message] = take_all(app, queue)
    known = arguments(message)
    app.tasks["WebhookEmit"].apply_async(
        kwargs={**known, "of_a_later_version": 1}, task_id=known["event_id"]
    )

    worker = own_worker(hooks)

    worker.wait_for_line(f"event {known['event_id']} cannot be fanned out; it stays queued", 2)
