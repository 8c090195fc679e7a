"""How many of a worker's places one hook may take, so that a slow receiver starves nobody: pure.

A place is a thread or greenlet of the pool. A hook may take all of them while its attempts go on
ending well before its deadline, and while no other hook has anything to deliver. Otherwise it gets
a tenth, or half of them as long as nothing is known; what comes beyond is put off, to a time when a
place is likely to be free.
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
#: Bounds of the time that a delivery is put off, in seconds.
SHORTEST, LONGEST = 3, 15


@dataclass(slots=True)
class _Lane:
    """What is known of one hook; times of ``clock``, in seconds."""

    taken: int = 0  #: places
    unbounded: float = float("-inf")  #: until when it may take as many as it wants
    since: float = 0.0  #: when a quick attempt ended last, or the first of these began
    duration: float = 0.0  #: of an attempt, a moving average
    free: float = float("-inf")  #: when the deliveries put off so far leave a place


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

    def take(self, hook: str) -> int | None:
        """Take a place for an attempt and return None, or say how long to put it off, in seconds.

        Call ``give_back`` after the attempt.
        """
        now = self._clock()
        with self._lock:
            lane = self._lanes.setdefault(hook, _Lane())
            last, when = self._last
            others = self._last_other if last == hook else when
            places = self._half if now - lane.since < GRACE else self._share
            if lane.taken >= places and now >= lane.unbounded and now - others < QUIET:
                return self._put_off(lane, now)
            if lane.taken == 0:
                lane.since = now
            lane.taken += 1
            self._last, self._last_other = (hook, now), others
            return None

    def give_back(self, hook: str, duration: float, deadline: float) -> None:
        """Give back a place after an attempt that took ``duration`` of ``deadline`` seconds."""
        now = self._clock()
        with self._lock:
            lane = self._lanes[hook]
            lane.taken -= 1
            lane.duration += 0.3 * (duration - lane.duration)
            if duration < deadline / 2:
                lane.unbounded = now + max(2 * duration, PATIENCE)
                lane.since = lane.free = now

    def _put_off(self, lane: _Lane, now: float) -> int:
        # While the first of them hang, only their absence tells how long attempts take.
        duration = max(lane.duration, now - lane.since)
        lane.free = min(max(lane.free, now) + duration / self._share, now + LONGEST)
        return max(ceil(lane.free - now), SHORTEST)
