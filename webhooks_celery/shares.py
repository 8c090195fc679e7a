"""How many of a worker's places one hook may take, so that a slow receiver starves nobody: pure.

A place is a thread or greenlet of the pool. A hook may take all of them while its attempts go on
ending well before its deadline, and while no other hook has anything to deliver. Otherwise it gets
a tenth, or half of them as long as nothing is known; what comes beyond is put off.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from time import monotonic

#: The part of the places that a slow hook gets.
PART = 10
#: After an attempt that took less than half of the deadline, a hook may take as many places as it
#: wants for twice as long as that took, and at least so long, in seconds.
PATIENCE = 0.25
#: Nothing is known of a hook for so long after its first attempt began, in seconds.
GRACE = 1.0
#: Another hook has nothing to deliver if it did not begin an attempt for so long, in seconds.
QUIET = 2.0
#: The shortest time that a delivery is put off, in seconds.
SHORTEST = 3
#: The longest, in seconds: so long after its receiver works again a hook may still be behind.
LONGEST = 300
#: How many of a hook's deliveries that were put off come back each second: many enough to find out
#: soon that its receiver works again, few enough to cost the others nothing. More of them if they
#: could not all be back within ``LONGEST``.
RETURNS = 10


@dataclass(slots=True)
class _Lane:
    """What is known of one hook; times of ``clock``, in seconds."""

    taken: int = 0  #: places
    unbounded: float = float("-inf")  #: until when it may take as many as it wants
    since: float = 0.0  #: when a quick attempt ended last, or the first of these began
    returns: float = float("-inf")  #: when the delivery put off last comes back


class Shares:
    """The places of one worker process; for any number of threads."""

    def __init__(self, places: int, clock: Callable[[], float] = monotonic) -> None:
        self._share = max(1, places // PART)
        self._half = max(1, places // 2)
        self._clock = clock
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lane] = {}
        #: The hook that took a place last, and when another one than that did.
        self._last = ("", float("-inf"))
        self._last_other = float("-inf")

    def wait(self, hook: str) -> int | None:
        """Say how long to put off a delivery that comes now, in seconds; None if not at all."""
        with self._lock:
            return self._wait(hook, self._clock())

    def take(self, hook: str) -> int | None:
        """Take a place for an attempt and return None, or say how long to put it off, in seconds.

        Call ``give_back`` after the attempt.
        """
        now = self._clock()
        with self._lock:
            wait = self._wait(hook, now)
            if wait is None:
                lane = self._lanes.setdefault(hook, _Lane())
                if lane.taken == 0:
                    lane.since = now
                lane.taken += 1
                self._last, self._last_other = (hook, now), self._others(hook)
            return wait

    def give_back(self, hook: str, duration: float, deadline: float) -> None:
        """Give back a place after an attempt that took ``duration`` of ``deadline`` seconds."""
        now = self._clock()
        with self._lock:
            lane = self._lanes[hook]
            lane.taken -= 1
            if duration < deadline / 2:
                lane.unbounded = now + max(2 * duration, PATIENCE)
                lane.since = lane.returns = now

    def _wait(self, hook: str, now: float) -> int | None:
        lane = self._lanes.get(hook)
        if lane is None or now < lane.unbounded or now - self._others(hook) >= QUIET:
            return None
        if lane.taken < (self._half if now - lane.since < GRACE else self._share):
            return None
        if lane.returns > now + LONGEST - 1:  # between those before it, then
            lane.returns = now
        lane.returns = max(lane.returns, now) + 1 / RETURNS
        return max(ceil(lane.returns - now), SHORTEST)

    def _others(self, hook: str) -> float:
        """Return when another hook than this one took a place."""
        last, when = self._last
        return self._last_other if last == hook else when
