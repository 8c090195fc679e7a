from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webhooks_celery.model import Hook
from webhooks_celery.retry import MAX_WAIT_MS, duration, next_wait, timetable, wait_ms

LONGEST = 2**31 - 1  # the largest number of milliseconds in a webhooks file


def hook(**schedule) -> Hook:
    return Hook(id="a", position=1, events=("*",), url="http://h/", **schedule)


@pytest.mark.parametrize(
    ("schedule", "attempt", "milliseconds"),
    [
        ({}, 1, 2_000),
        ({}, 2, 4_000),
        ({}, 3, 8_000),
        ({"backoff_ms": 1}, 1, 1),
        ({"backoff_ms": 333}, 4, 2_664),
        ({"backoff_ms": 1}, 34, 2**33),
        ({"backoff_ms": 0}, 1, 0),
        ({"backoff_ms": 0}, 10**6, 0),
        # the cap
        ({"backoff_max_ms": 5_000}, 2, 4_000),
        ({"backoff_max_ms": 5_000}, 3, 5_000),
        ({"backoff_max_ms": 5_000}, 10**6, 5_000),
        ({"backoff_max_ms": 1_999}, 1, 1_999),
        ({"backoff_max_ms": 0}, 3, 0),
        # no date overflows
        ({"backoff_ms": 1}, 10**6, MAX_WAIT_MS),
        ({"backoff_ms": LONGEST}, 10**6, MAX_WAIT_MS),
        ({"backoff_ms": LONGEST, "backoff_max_ms": LONGEST}, 10**6, LONGEST),
    ],
)
def test_wait_is_exact(schedule, attempt, milliseconds):
    wait = wait_ms(hook(**schedule), attempt, random=0.999)
    assert wait == milliseconds
    assert isinstance(wait, int)


@pytest.mark.parametrize(
    ("jitter", "random", "milliseconds"),
    [(0.5, 0.0, 2_000), (0.5, 0.5, 1_500), (0.25, 0.5, 1_750), (1.0, 0.75, 500)],
)
def test_jitter_takes_off_its_share(jitter, random, milliseconds):
    assert wait_ms(hook(jitter=jitter), 1, random) == milliseconds


def test_jitter_is_taken_off_the_cap():
    assert wait_ms(hook(jitter=0.5, backoff_max_ms=100), 9, 0.5) == 75


@pytest.mark.parametrize(
    ("attempts", "attempt", "milliseconds"),
    [(3, 1, 2_000), (3, 2, 4_000), (3, 3, None), (3, 4, None), (1, 1, None), (10**6, 1, 2_000)],
)
def test_next_wait_or_none_to_give_up(attempts, attempt, milliseconds):
    assert next_wait(hook(attempts=attempts), attempt) == milliseconds


@settings(deadline=None)
@given(
    backoff_ms=st.integers(0, LONGEST),
    backoff_max_ms=st.none() | st.integers(0, LONGEST),
    jitter=st.floats(0, 1),
    attempt=st.integers(1, 10**9),
    random=st.floats(0, 1, exclude_max=True),
)
def test_a_wait_is_never_negative_longer_than_its_limits_or_shorter_than_the_jitter(
    backoff_ms, backoff_max_ms, jitter, attempt, random
):
    schedule = {"backoff_ms": backoff_ms, "backoff_max_ms": backoff_max_ms}
    full = wait_ms(hook(**schedule), attempt)
    limits = [MAX_WAIT_MS] if backoff_max_ms is None else [MAX_WAIT_MS, backoff_max_ms]
    assert 0 <= full <= min(limits)
    assert full * (1 - jitter) <= wait_ms(hook(**schedule, jitter=jitter), attempt, random) <= full


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        ({}, "at once, +2 s, +6 s"),
        ({"attempts": 1}, "at once"),
        ({"backoff_ms": 500}, "at once, +500 ms, +1.5 s"),
        ({"backoff_ms": 0}, "at once, +0 ms, +0 ms"),
        ({"jitter": 1.0}, "at once, +2 s, +6 s"),
        ({"attempts": 5, "backoff_max_ms": 4_000}, "at once, +2 s, +6 s, +10 s, +14 s"),
        ({"attempts": 8}, "at once, +2 s, +6 s, +14 s, +30 s, +62 s, +126 s, +254 s"),
        ({"attempts": 9}, "at once, +2 s, +6 s, +14 s, +30 s, +62 s, +126 s, +254 s, …"),
        ({"attempts": 10**6, "backoff_ms": 0}, "at once" + ", +0 ms" * 7 + ", …"),
    ],
)
def test_timetable(schedule, text):
    assert timetable(hook(**schedule)) == text


def test_timetable_is_as_long_as_asked():
    assert timetable(hook(attempts=10**6), most=2) == "at once, +2 s, …"


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (0.5, "0.5 ms"),
        (250, "250 ms"),
        (999, "999 ms"),
        (1_000, "1 s"),
        (1_500, "1.5 s"),
        (59_000, "59 s"),
        (60_000, "1 min"),
        (90_000, "90 s"),
        (120_000, "2 min"),
        (599_500, "599.5 s"),
        (600_500, "10 min"),
        (3_599_999, "1 h"),
        (3_600_000, "1 h"),
        (3_900_000, "1 h 5 min"),
        (86_400_000, "24 h"),
        (172_800_000, "2 d"),
        (176_400_000, "2 d 1 h"),
        (MAX_WAIT_MS, "365 d"),
    ],
)
def test_duration(milliseconds, text):
    assert duration(milliseconds) == text
