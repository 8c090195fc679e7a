"""What delivering and emitting cost, against the least that Celery and requests can do.

Counted in calls of functions, Python's and C's, so that it does not depend on the clock; times are
measured in ``benchmarks``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from webhooks_celery import emit

PAYLOAD = {"id": 1, "name": "Zoë", "tags": ["a", "b", "c"], "face": {"x": 1, "y": 2}}


def calls(of: Callable[[], object], times: int = 10) -> float:
    """Return how many calls one ``of()`` makes, once it has run before."""
    of()
    count = 0

    def note(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        for _ in range(times):
            of()
    finally:
        sys.setprofile(None)
    return count / times


@pytest.fixture
def app(receiver, webhooks_file, make_app):
    """Ten hooks want ``Ten``, one of them ``One`` too; a thousand more want nothing."""
    hooks = [{"events": ["Ten"], "url": receiver.url("/x")} for _ in range(9)]
    hooks.append({"id": "h", "events": ["Ten", "One"], "url": receiver.url("/x")})
    hooks += [{"events": [f"Never{n}"], "url": receiver.url("/x")} for n in range(1000)]
    return make_app(webhooks_config=webhooks_file(*hooks))


@pytest.fixture
def bare(app, queue):
    """Publishes a task of the same size as a delivery, over a connection that is held."""

    @app.task(name="bare", shared=False)
    def bare(**_: object) -> None:
        """Never runs."""

    kwargs = {"hook": "h", "event": "One", "timestamp": "2025-11-20T12:34:56.789Z", "seen": None}
    kwargs["payload"] = '{"id":1,"name":"Zoë","tags":["a","b","c"],"face":{"x":1,"y":2}}'
    with app.producer_pool.acquire(block=True) as producer:
        yield lambda: bare.apply_async(kwargs=kwargs, queue=queue, producer=producer)


def test_emitting_to_one_hook_costs_little_more_than_a_bare_task(app, bare):
    assert calls(lambda: emit("One", PAYLOAD, app=app)) <= 1.15 * calls(bare)


def test_emitting_to_ten_hooks_costs_much_less_than_ten_bare_tasks(app, bare):
    assert calls(lambda: emit("Ten", PAYLOAD, app=app)) <= 0.6 * 10 * calls(bare)


def test_emitting_what_no_hook_wants_costs_next_to_nothing(app):
    assert calls(lambda: emit("Nobody", PAYLOAD, app=app)) < 50


def test_an_attempt_costs_less_than_sending_a_prepared_request(app, receiver):
    body = b'{"id":"8538265e-4b35-4a36-af7f-9ea850ce17d4","payload":null}'
    prepared = requests.Request("POST", receiver.url("/x"), data=body).prepare()
    adapter = HTTPAdapter()
    deliver = app.tasks["WebhookDelivery"]
    event = {"event": "One", "timestamp": "2025-11-20T12:34:56.789Z", "payload": "null"}

    ours = calls(lambda: deliver(hook="h", **event))
    theirs = calls(lambda: adapter.send(prepared, timeout=10).content)
    adapter.close()
    assert ours <= 1.1 * theirs
