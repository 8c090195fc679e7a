from __future__ import annotations

import json
import subprocess
import sys
from collections import ChainMap, Counter, OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from types import MappingProxyType
from uuid import UUID

import pytest
from django.utils.functional import SimpleLazyObject, lazystr
from hypothesis import given, settings
from hypothesis import strategies as st

from webhooks_celery.errors import InvalidEvent
from webhooks_celery.model import Event
from webhooks_celery.payload import encode_payload
from webhooks_celery.request import body

ID = UUID("8538265e-4b35-4a36-af7f-9ea850ce17d4")
HUGE = 10**5_000  # str() refuses it, and so does json: the careful writer has to take over
HUGE_TEXT = "1" + "0" * 5_000


class Colour(Enum):
    RED = "red"
    PAIR = (1, 2)


class Text(str, Enum):  # as enum.StrEnum, which Python 3.10 does not have
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Person:
    name: str
    friend: object = None


@dataclass(frozen=True)
class Point:
    x: int


Pair = namedtuple("Pair", "a b")

TABLE = [
    # plain JSON
    (None, "null"),
    (True, "true"),
    (0, "0"),
    (-0.0, "-0.0"),
    (0.1, "0.1"),
    (1e22, "1e+22"),
    ("", '""'),
    ("é😀\u2028", '"é😀\u2028"'),
    ('"\\\n\0', r'"\"\\\n\u0000"'),
    ([], "[]"),
    ({}, "{}"),
    ({"b": [1, {"a": None}], "a": " "}, '{"b":[1,{"a":null}],"a":" "}'),
    # integers keep every digit
    (123456789012345678901234567890, "123456789012345678901234567890"),
    (HUGE, HUGE_TEXT),
    (-HUGE, f"-{HUGE_TEXT}"),
    # dates, times, numbers
    (datetime(2025, 1, 2, 3, 4, 5, 6, timezone.utc), '"2025-01-02T03:04:05.000006+00:00"'),
    (datetime(2025, 1, 2), '"2025-01-02T00:00:00"'),
    (date(2025, 1, 2), '"2025-01-02"'),
    (time(3, 4), '"03:04:00"'),
    (ID, f'"{ID}"'),
    (Decimal("1.10"), '"1.10"'),
    (Decimal("1e400"), '"1E+400"'),
    # enums
    (Colour.RED, '"red"'),
    (Colour.PAIR, "[1,2]"),
    (Text.RED, '"red"'),
    (Level.HIGH, "3"),
    # collections
    ((1, (2,)), "[1,[2]]"),
    (Pair(1, 2), "[1,2]"),
    ({3, 1, 2}, "[1,2,3]"),
    (frozenset({"b", "a"}), '["a","b"]'),
    ({frozenset({2, 1})}, "[[1,2]]"),
    ({"s": {Level.HIGH}}, '{"s":[3]}'),
    (OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
    (Counter("aa"), '{"a":2}'),
    (MappingProxyType({"a": 1}), '{"a":1}'),
    (UserDict(a=UserDict(b=1)), '{"a":{"b":1}}'),
    (ChainMap({"a": 1}), '{"a":1}'),
    # dataclasses
    (Person("Ann"), '{"name":"Ann","friend":null}'),
    (Person("Ann", Person("Bob")), '{"name":"Ann","friend":{"name":"Bob","friend":null}}'),
    ([Point(1)], '[{"x":1}]'),
    # keys
    ({True: 1, None: 2, 1.5: 3, 7: 4}, '{"true":1,"null":2,"1.5":3,"7":4}'),
    ({Text.RED: 1, Colour.RED.value + "ish": 2, Level.HIGH: 3}, '{"red":1,"redish":2,"3":3}'),
    ({Colour.RED: 1}, '{"red":1}'),
    ({ID: 1, date(2025, 1, 2): 2, Decimal("1.10"): 3}, f'{{"{ID}":1,"2025-01-02":2,"1.10":3}}'),
    ({time(3, 4): 1}, '{"03:04:00":1}'),
    ({HUGE: 1}, f'{{"{HUGE_TEXT}":1}}'),
    ({"": {"": 1}}, '{"":{"":1}}'),
    # what Django makes
    (lazystr("Grüße"), '"Grüße"'),
    ({"a": [lazystr("b")]}, '{"a":["b"]}'),
    ({lazystr("a"): 1}, '{"a":1}'),
    (SimpleLazyObject(lambda: {"a": 1}), '{"a":1}'),
    # surrogates without a partner, as JavaScript writes them
    ("\ud800", r'"\ud800"'),
    ("\\\udfff", r'"\\\udfff"'),
    ({"\ud800": 1}, r'{"\ud800":1}'),
]


@pytest.mark.parametrize(
    ("payload", "text"), TABLE, ids=[f"{type(value).__name__}-{text[:30]}" for value, text in TABLE]
)
class TestEncode:
    def test_text(self, payload, text):
        assert encode_payload(payload) == text

    def test_text_beside_something_that_json_refuses(self, payload, text):
        """The careful writer says the same as json does."""
        assert encode_payload([payload, HUGE]) == f"[{text},{HUGE_TEXT}]"

    def test_travels_in_a_body(self, payload, text):
        event = Event(name="A", timestamp="now", payload=encode_payload(payload))
        assert body("id", event).endswith(b'"payload":' + text.encode() + b"}")


def test_a_set_of_unlike_things_comes_in_any_order():
    assert sorted(json.loads(encode_payload({1, "a"})), key=str) == [1, "a"]


def loop() -> dict:
    inner: dict = {"b": []}
    inner["b"].append({"again": inner})
    return {"a": inner}


def befriended() -> Person:
    ann = Person("Ann")
    ann.friend = [ann]
    return ann


def deep(levels: int) -> list:
    made: list = []
    for _ in range(levels):
        made = [made]
    return made


NOT_A_NUMBER = "has no JSON form; send null or a string instead."
BYTES = "bytes have no JSON form; send text, such as base64, instead."
FIELDS = "has no JSON form; pass the fields that the receiver needs, as a dict."


@pytest.mark.parametrize(
    ("payload", "place", "problem"),
    [
        # not numbers
        (float("nan"), "payload", f"nan {NOT_A_NUMBER}"),
        ({"a": [0, float("-inf")]}, "payload.a[1]", f"-inf {NOT_A_NUMBER}"),
        ([Decimal("NaN")], "payload[0]", f"NaN {NOT_A_NUMBER}"),
        ([Decimal("sNaN")], "payload[0]", f"sNaN {NOT_A_NUMBER}"),
        (Decimal("-Infinity"), "payload", f"-Infinity {NOT_A_NUMBER}"),
        (Person("Ann", {"k": float("inf")}), "payload.friend.k", f"inf {NOT_A_NUMBER}"),
        ({Decimal("NaN")}, "payload[0]", f"NaN {NOT_A_NUMBER}"),
        # bytes
        ({"user": {"avatar": b"\x89PNG"}}, "payload.user.avatar", BYTES),
        ([bytearray()], "payload[0]", BYTES),
        (memoryview(b""), "payload", BYTES),
        # objects
        ({"a": object()}, "payload.a", f"an object of type builtins.object {FIELDS}"),
        ([timedelta(1)], "payload[0]", f"an object of type datetime.timedelta {FIELDS}"),
        (Person, "payload", f"an object of type builtins.type {FIELDS}"),
        ((n for n in "a"), "payload", f"an object of type builtins.generator {FIELDS}"),
        (range(3), "payload", f"an object of type builtins.range {FIELDS}"),
        (1j, "payload", f"an object of type builtins.complex {FIELDS}"),
        (
            {"a": SimpleLazyObject(lambda: "text")},
            "payload.a",
            f"an object of type django.utils.functional.SimpleLazyObject {FIELDS}",
        ),
        (
            [SimpleLazyObject(lambda: 1)],
            "payload[0]",
            f"an object of type django.utils.functional.SimpleLazyObject {FIELDS}",
        ),
        # cycles and depth
        (loop(), "payload.a.b[0].again", "contains itself."),
        (befriended(), "payload.friend[0]", "contains itself."),
        (deep(100_000), "payload", "is nested too deeply."),
        # keys
        ({"a": {(1, 2): 3}}, "payload.a", "a key of type tuple has no JSON form."),
        ({b"a": 1}, "payload", "a key of type bytes has no JSON form."),
        ([{Colour.PAIR: 1}], "payload[0]", "a key of type tuple has no JSON form."),
        ({Point(1): 1}, "payload", "a key of type Point has no JSON form."),
        ({Decimal("NaN"): 1}, "payload", "a key of type Decimal has no JSON form."),
        ({float("nan"): 1}, "payload", f"nan {NOT_A_NUMBER}"),
        # places that have to be shown as they are in the JSON, on one line
        ({Colour.RED: {7: b""}}, "payload.red.7", BYTES),
        ({HUGE: b""}, f"payload.{HUGE_TEXT}", BYTES),
        ({"a\nb": {"\ud800": b""}}, r"payload.'a\nb'.'\ud800'", BYTES),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else type(value).__name__,
)
def test_what_has_no_json_form_is_refused_with_its_place(payload, place, problem):
    with pytest.raises(InvalidEvent) as caught:
        encode_payload(payload)
    assert (caught.value.place, caught.value.problem) == (place, problem)


def test_the_same_thing_twice_is_no_cycle():
    shared = [HUGE]
    assert encode_payload([shared, shared]) == f"[[{HUGE_TEXT}],[{HUGE_TEXT}]]"


def test_looking_for_lazy_strings_does_not_load_django():
    script = (
        "import sys; from webhooks_celery.payload import encode_payload\n"
        "try: encode_payload(object())\n"
        "except ValueError: print('django' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert told.stdout == "False\n", told.stderr


plain = st.none() | st.booleans() | st.integers() | st.text()
plain |= st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@settings(deadline=None, max_examples=150)
@given(payload=json_values)
def test_json_values_arrive_as_they_were(payload):
    text = encode_payload(payload)
    event = Event(name="A", timestamp="now", payload=text)
    # repr() tells 1 from 1.0 and True, and 0.0 from -0.0.
    assert repr(json.loads(text)) == repr(payload)
    assert repr(json.loads(body("id", event))["payload"]) == repr(payload)


@settings(deadline=None, max_examples=100)
@given(payload=json_values)
def test_both_writers_write_the_same(payload):
    assert encode_payload([payload, HUGE]) == f"[{encode_payload(payload)},{HUGE_TEXT}]"


@settings(deadline=None, max_examples=100)
@given(text=st.text(st.characters(), max_size=8))
def test_any_text_can_be_sent_surrogates_included(text):
    sent = encode_payload({text: text}).encode()
    # Two that make a pair arrive as the one character that they stand for.
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    assert json.loads(sent) == {whole: whole}
