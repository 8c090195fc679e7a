from __future__ import annotations

import dataclasses
import pickle
from datetime import datetime, timedelta, timezone

import pytest

from webhooks_celery import model
from webhooks_celery.model import (
    Attempt,
    DeadLetter,
    Event,
    Hook,
    Message,
    event_name_fault,
    timestamp,
)

HOOK = Hook(
    id="person-hooks",
    position=1,
    events=("Person*",),
    url="https://h.example:8443/in/s3cret?key=s3cret",
    headers={"X-Key": "s3cret"},
)
EVENT = Event(name="PersonCreate", timestamp="2025-11-20T12:34:56.789Z", payload='{"pin":"s3cret"}')
ATTEMPT = Attempt(status=200, milliseconds=12)
DEAD_LETTER = DeadLetter(
    delivery="8538265e-4b35-4a36-af7f-9ea850ce17d4",
    hook="person-hooks",
    event="PersonCreate",
    timestamp="2025-11-20T12:34:56.789Z",
    payload='{"pin":"s3cret"}',
    reason="HTTP 500.",
    attempts=3,
    status=500,
    parked="2025-11-20T12:35:02.789Z",
)
MESSAGE = Message(id="8538265e", task="WebhookEmit", kwargs={"payload": "s3cret"})
VALUES = [HOOK, EVENT, ATTEMPT, DEAD_LETTER, MESSAGE]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("PersonCreate", None),
        ("person.create v2", None),
        ("Überweisung", None),
        ("*", None),
        ("", "must not be empty."),
        (" ", "must not be empty."),
        (" a", "must not begin or end with a blank."),
        ("a\n", "must not begin or end with a blank."),
        ("a\r\nX-Evil: 1", "must not contain control characters."),
        ("a\tb", "must not contain control characters."),
        ("a\0b", "must not contain control characters."),
        ("a\x7fb", "must not contain control characters."),
        ("€", "must be Latin-1: it is sent as an HTTP header."),
        ("\ud800", "must be Latin-1: it is sent as an HTTP header."),
        (None, "must be a string, not NoneType."),
        (b"PersonCreate", "must be a string, not bytes."),
    ],
    ids=ascii,
)
def test_event_name_fault(name, fault):
    assert event_name_fault(name) == fault


NOON = datetime(2025, 11, 20, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (NOON, "2025-11-20T12:00:00.000Z"),
        (NOON.replace(microsecond=789_000), "2025-11-20T12:00:00.789Z"),
        (NOON.replace(microsecond=999_999), "2025-11-20T12:00:00.999Z"),  # cut, not rounded
        (NOON.replace(tzinfo=timezone(timedelta(hours=1))), "2025-11-20T11:00:00.000Z"),
        (NOON.replace(tzinfo=timezone(timedelta(hours=-3.5))), "2025-11-20T15:30:00.000Z"),
    ],
    ids=["utc", "milliseconds", "microseconds", "east", "west"],
)
def test_timestamp(moment, text):
    assert timestamp(moment) == text


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
class TestEveryValue:
    def test_is_frozen_and_small(self, value):
        assert not hasattr(value, "__dict__")
        for field in dataclasses.fields(value):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(value, field.name, None)

    def test_takes_keywords_only(self, value):
        with pytest.raises(TypeError):
            type(value)(*(getattr(value, field.name) for field in dataclasses.fields(value)))

    def test_can_be_pickled_and_compared(self, value):
        assert pickle.loads(pickle.dumps(value)) == value

    def test_shows_no_secret(self, value):
        assert "s3cret" not in repr(value)


def test_every_value_is_tested():
    kinds = {kind for kind in vars(model).values() if dataclasses.is_dataclass(kind)}
    assert {type(value) for value in VALUES} == kinds


def test_a_hook_can_be_a_key():
    assert {HOOK: 1}[dataclasses.replace(HOOK)] == 1


def test_a_hook_has_the_defaults_of_the_file():
    plain = Hook(id="a", position=1, events=("A",), url="http://h/")
    assert (plain.method, plain.headers) == ("POST", {})
    assert (plain.timeout_ms, plain.attempts, plain.backoff_ms) == (10_000, 3, 2_000)
    assert (plain.backoff_max_ms, plain.jitter) == (None, 0.0)
    assert (plain.server_events, plain.enabled) == (False, True)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://h.example:8443/in/s3cret?key=s3cret#s3cret", "https://h.example:8443"),
        ("http://homeassistant", "http://homeassistant"),
        ("http://[::1]:8080/x", "http://[::1]:8080"),
        ("http://h?key=s3cret", "http://h"),
    ],
)
def test_origin_is_all_of_a_url_that_may_be_shown(url, origin):
    assert dataclasses.replace(HOOK, url=url).origin == origin


@pytest.mark.parametrize(("problem", "delivered"), [("", True), ("HTTP 500.", False)])
def test_delivered(problem, delivered):
    assert dataclasses.replace(ATTEMPT, problem=problem).delivered is delivered
