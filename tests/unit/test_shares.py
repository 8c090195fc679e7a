"""Who may take a worker's places, by a clock that stands still unless it is set."""

from __future__ import annotations

from collections import Counter

import pytest

from webhooks_celery.shares import GRACE, LONGEST, PATIENCE, QUIET, RETURNS, SHORTEST, Shares

DEADLINE = 10.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shares(clock: Clock) -> Shares:
    """Fifty places: the share of a slow hook is five."""
    return Shares(50, clock)


def hang(shares: Shares, clock: Clock, count: int = 5) -> None:
    """Begin attempts of the hook "slow" that do not end, beside another hook."""
    for _ in range(count):
        shares.take("slow")
    clock.now += GRACE
    shares.take("other")


def take(shares: Shares, hook: str, times: int) -> int:
    """Return how many places the hook gets when it tries so often."""
    return [shares.take(hook) for _ in range(times)].count(None)


def test_a_hook_that_is_alone_takes_every_place(shares):
    assert take(shares, "a", 50) == 50


def test_beside_others_a_hook_of_which_nothing_is_known_gets_half(shares, clock):
    shares.take("other")
    assert [shares.take("new") for _ in range(26)] == [None] * 25 + [SHORTEST]


def test_beside_others_a_hook_whose_attempts_do_not_end_gets_its_share(shares, clock):
    hang(shares, clock, count=3)
    assert [shares.take("slow") for _ in range(4)] == [None] * 2 + [SHORTEST] * 2


@pytest.mark.parametrize(("places", "share"), [(1, 1), (4, 1), (10, 1), (20, 2), (500, 50)])
def test_a_share_is_a_tenth_and_one_at_least(places, share, clock):
    shares = Shares(places, clock)
    hang(shares, clock, count=1)
    assert take(shares, "slow", places) == share - 1


def test_a_place_that_is_given_back_can_be_taken_again(shares, clock):
    hang(shares, clock)
    assert take(shares, "slow", 1) == 0
    shares.give_back("slow", DEADLINE, DEADLINE)
    assert take(shares, "slow", 2) == 1


def test_it_may_take_more_when_the_others_have_been_quiet(shares, clock):
    hang(shares, clock)
    clock.now += QUIET
    assert take(shares, "slow", 20) == 20
    shares.take("other")
    assert take(shares, "slow", 1) == 0


@pytest.mark.parametrize(
    ("duration", "while_"),
    [
        pytest.param(0.001, PATIENCE, id="at once"),
        pytest.param(2.0, 4.0, id="twice as long as it took"),
    ],
)
def test_a_hook_whose_attempts_end_in_time_is_not_bounded(duration, while_, shares, clock):
    shares.take("quick")
    shares.give_back("quick", duration, DEADLINE)
    clock.now += while_ * 0.9
    shares.take("other")
    assert take(shares, "quick", 40) == 40
    clock.now += while_ * 0.2
    shares.take("other")
    assert take(shares, "quick", 1) == 0


def test_attempts_that_end_at_their_deadline_do_not_free_it(shares, clock):
    hang(shares, clock)
    shares.give_back("slow", DEADLINE / 2, DEADLINE)
    assert take(shares, "slow", 2) == 1


def test_what_is_put_off_comes_back_little_by_little(shares, clock):
    hang(shares, clock)
    waits = [shares.take("slow") for _ in range(100)]
    assert waits[: 2 * RETURNS] == [SHORTEST] * 2 * RETURNS
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(100 / RETURNS, abs=1)


def test_however_many_are_put_off_they_come_back_in_time_and_evenly(shares, clock):
    hang(shares, clock)
    waits = Counter(shares.take("slow") for _ in range(10 * LONGEST * RETURNS))
    assert set(waits) == set(range(SHORTEST, LONGEST + 1))
    ordinary = [waits[wait] for wait in range(SHORTEST + 1, LONGEST)]
    assert min(ordinary) >= 9 * RETURNS
    assert max(ordinary) <= 11 * RETURNS


def test_after_a_quick_attempt_nothing_waits_for_those_put_off(shares, clock):
    hang(shares, clock)
    for _ in range(100):
        shares.take("slow")
    shares.give_back("slow", 0.1, DEADLINE)
    assert take(shares, "slow", 20) == 20
    clock.now += GRACE
    shares.take("other")
    assert shares.take("slow") == SHORTEST


def test_to_ask_takes_no_place(shares, clock):
    hang(shares, clock, count=4)
    assert [shares.wait("slow") for _ in range(3)] == [None] * 3
    assert shares.wait("other") is None
    assert shares.wait("never seen") is None
    shares.take("slow")
    assert shares.wait("slow") == SHORTEST
