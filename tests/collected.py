"""Things that other threads bring, and waiting for them without sleeping."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Collected(Generic[T]):
    """A list that one can wait on."""

    def __init__(self) -> None:
        self.items: list[T] = []
        self._changed = threading.Condition()

    def add(self, item: T) -> None:
        with self._changed:
            self.items.append(item)
            self._changed.notify_all()

    def wake(self) -> None:
        """Let those who wait look again, though nothing has come."""
        with self._changed:
            self._changed.notify_all()

    def wait_until(self, enough: Callable[[list[T]], object], timeout: float = 30) -> bool:
        """Wait until ``enough`` is true of what has come; say whether it was in time."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: enough(self.items), timeout))
