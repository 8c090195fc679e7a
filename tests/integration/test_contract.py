"""The public contract, seen by a receiver that knows nothing of this package."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from brokers import eta, outcome, put, take, take_all

from webhooks_celery import emit
from webhooks_celery.errors import AttemptFailed
from webhooks_celery.request import VERSION

PERSON = {"id": "8b3c0f52", "name": "Zoë", "birthDate": None, "faces": [1, 2.5], "isHidden": False}


@pytest.fixture
def sample(receiver, webhooks_file) -> str:
    """The file of the documentation, delivered to the receiver."""
    return webhooks_file(
        {
            "id": "person-hooks",
            "events": ["PersonCreate", "PersonUpdate", "PersonDelete"],
            "url": receiver.url("/webhooks/immich"),
            "headers": {"Authorization": "Bearer token", "X-Webhook-Secret": "secret"},
            "timeoutMs": 15000,
            "retries": 5,
            "backoffMs": 3000,
        }
    )


@pytest.mark.parametrize("event", ["PersonCreate", "PersonUpdate", "PersonDelete"])
def test_receiver_gets_exactly_this_body_and_these_headers(
    event, sample, receiver, make_app, run_worker
):
    app = make_app(webhooks_config=sample)
    run_worker(app)

    before = datetime.now(timezone.utc)
    [delivery] = emit(event, PERSON, app=app)
    result = outcome(app, delivery)
    after = datetime.now(timezone.utc)

    [request] = receiver.requests
    timestamp = request.headers["X-Immich-Timestamp"]
    assert (
        request.body
        == (
            f'{{"id":"{delivery}","eventName":"{event}","timestamp":"{timestamp}","payload":'
            '{"id":"8b3c0f52","name":"Zoë","birthDate":null,"faces":[1,2.5],"isHidden":false}}'
        ).encode()
    )
    assert request.head.startswith(b"POST /webhooks/immich HTTP/1.1\r\n")
    assert request.headers == {
        "Host": receiver.url("").removeprefix("http://"),
        "Accept-Encoding": "identity",
        "Content-Length": str(len(request.body)),
        "Content-Type": "application/json",
        "User-Agent": f"webhooks-celery/{VERSION}",
        "Authorization": "Bearer token",
        "X-Webhook-Secret": "secret",
        "X-Immich-Event": event,
        "X-Immich-Delivery-Id": delivery,
        "X-Immich-Timestamp": timestamp,
    }
    emitted = datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    assert before - timedelta(milliseconds=1) < emitted <= after
    assert (result["hook"], result["attempt"], result["status"]) == ("person-hooks", 1, 200)


def test_five_attempts_wait_3_6_12_and_24_seconds(
    sample, queue, new_queue, receiver, make_app, run_worker
):
    """The waits are read from the queued messages; nobody waits for them.

    The worker consumes another queue. The test brings each message over: reads its ``eta``, and
    puts it where the worker is, to be run at once.
    """
    receiver.answer("/webhooks/immich", 500)
    app = make_app(webhooks_config=sample)
    at_once = new_queue()
    run_worker(app, queues=[at_once])

    [delivery] = emit("PersonCreate", PERSON, app=app)
    first = take(app, queue)
    assert first.headers["eta"] is None
    put(app, at_once, first)
    for attempt, seconds in enumerate([3, 6, 12, 24], start=1):
        message = take(app, queue)
        taken = datetime.now(timezone.utc)
        published = eta(message) - timedelta(seconds=seconds)
        assert receiver.requests[-1].arrived < published < taken
        assert (message.headers["id"], message.headers["retries"]) == (delivery, attempt)
        put(app, at_once, message, eta=None)

    given_up = outcome(app, delivery)
    assert isinstance(given_up, AttemptFailed)
    assert str(given_up).startswith("hook person-hooks, attempt 5 of 5: HTTP 500")
    assert take_all(app, queue) == []
    assert len(receiver.requests) == 5
    assert len({(request.head, request.body) for request in receiver.requests}) == 1
    body = json.loads(receiver.requests[0].body)
    assert body["id"] == delivery == receiver.requests[0].headers["X-Immich-Delivery-Id"]
