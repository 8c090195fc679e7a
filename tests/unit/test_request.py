from __future__ import annotations

import dataclasses
import json
import re
from uuid import UUID

import pytest

from webhooks_celery.model import Event, Hook
from webhooks_celery.request import VERSION, Headers, body, delivery_id, fingerprint

EVENT_ID = "a2f6f5a8-3d0c-4f3c-9a64-0c4f0c6c8f11"
DELIVERY = "8538265e-4b35-4a36-af7f-9ea850ce17d4"


def event(**fields) -> Event:
    plain = {"name": "PersonCreate", "timestamp": "2025-11-20T12:34:56.789Z", "payload": "null"}
    return Event(**{**plain, **fields})


def hook(headers: dict[str, str], **fields) -> Hook:
    fields = {"url": "http://h/", **fields}
    return Hook(id="a", position=1, events=("*",), headers=headers, **fields)


@pytest.mark.parametrize(
    ("fields", "name", "payload"),
    [
        ({}, '"PersonCreate"', "null"),
        ({"payload": '{"id":1,"big":123456789012345678901}'}, '"PersonCreate"', None),
        ({"payload": '"Grüße \\ud800 😀"'}, '"PersonCreate"', None),
        ({"payload": '{"payload":{"%s":"{0}"}}'}, '"PersonCreate"', None),
        ({"name": 'Say "hi" \\ Ü'}, r'"Say \"hi\" \\ Ü"', "null"),
    ],
    ids=["no payload", "object", "not ASCII", "looks like a template", "odd name"],
)
def test_body_to_the_byte(fields, name, payload):
    payload = fields.get("payload", payload)
    assert (
        body(DELIVERY, event(**fields))
        == (
            '{"id":"8538265e-4b35-4a36-af7f-9ea850ce17d4","eventName":' + name + ","
            '"timestamp":"2025-11-20T12:34:56.789Z","payload":' + payload + "}"
        ).encode()
    )


def test_body_has_its_keys_in_order():
    assert list(json.loads(body(DELIVERY, event()))) == ["id", "eventName", "timestamp", "payload"]


ADDED = {
    "Content-Type": "application/json",
    "User-Agent": f"webhooks-celery/{VERSION}",
    "X-Immich-Event": "PersonCreate",
    "X-Immich-Delivery-Id": DELIVERY,
    "X-Immich-Timestamp": "2025-11-20T12:34:56.789Z",
}


@pytest.mark.parametrize(
    ("own", "replaced"),
    [
        ({}, []),
        ({"X-Key": "k"}, []),
        ({"content-type": "application/cloudevents+json"}, ["Content-Type"]),
        ({"USER-AGENT": "mine"}, ["User-Agent"]),
        ({"x-immich-event": "mine"}, ["X-Immich-Event"]),
        ({"X-IMMICH-DELIVERY-ID": "mine"}, ["X-Immich-Delivery-Id"]),
        ({"X-Immich-Timestamp": ""}, ["X-Immich-Timestamp"]),
        ({name.swapcase(): "mine" for name in ADDED}, list(ADDED)),
    ],
    ids=lambda value: ", ".join(value) or "none",
)
def test_a_hooks_own_header_goes_before_an_added_one(own, replaced):
    kept = {name: value for name, value in ADDED.items() if name not in replaced}
    assert Headers(hook(own)).for_delivery(DELIVERY, event()) == kept | own


@pytest.mark.parametrize("prefix", ["X-Acme-", "X-", ""])
def test_the_prefix_can_be_changed(prefix):
    sent = Headers(hook({"X-Immich-Event": "mine"}), prefix).for_delivery(DELIVERY, event())
    assert sent["X-Immich-Event"] == "mine"
    assert sent[f"{prefix}Event"] == "PersonCreate"
    assert sent[f"{prefix}Delivery-Id"] == DELIVERY
    assert sent[f"{prefix}Timestamp"] == "2025-11-20T12:34:56.789Z"


def test_extra_headers_are_sent_too():
    headers = Headers(hook({}), extra={"Proxy-Authorization": "Basic eDp5"})
    sent = headers.for_delivery(DELIVERY, event())
    assert sent == {**ADDED, "Proxy-Authorization": "Basic eDp5"}


def test_one_delivery_cannot_spoil_the_next():
    headers = Headers(hook({}))
    headers.for_delivery(DELIVERY, event()).clear()
    assert headers.for_delivery(DELIVERY, event()) == ADDED


def test_delivery_id_never_changes():
    # Written down once: receivers de-duplicate by it, also after an upgrade.
    assert delivery_id(EVENT_ID, "person-hooks") == "6705af8e-d01c-5431-b6cd-1ad25e64928a"


def test_delivery_ids_differ_by_hook_and_event():
    other = "b2f6f5a8-3d0c-4f3c-9a64-0c4f0c6c8f11"
    ids = {delivery_id(made, hook) for made in (EVENT_ID, other) for hook in ("a", "b", "Ü", "")}
    assert len(ids) == 8
    assert {UUID(one).version for one in ids} == {5}


def test_delivery_id_does_not_depend_on_how_the_event_id_is_written():
    assert delivery_id(EVENT_ID.upper(), "a") == delivery_id(EVENT_ID, "a")


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({}, True),
        ({"headers": {"X": "y"}}, True),
        ({"timeout_ms": 1}, True),
        ({"url": "http://h/2"}, False),
        ({"method": "PUT"}, False),
    ],
)
def test_fingerprint_tells_receivers_apart(fields, same):
    plain = hook({})
    assert (fingerprint(dataclasses.replace(plain, **fields)) == fingerprint(plain)) is same


def test_fingerprint_does_not_show_the_url():
    assert re.fullmatch("[0-9a-f]{12}", fingerprint(hook({}, url="http://h/s3cret")))
