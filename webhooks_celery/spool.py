"""Where messages wait on this machine's disk while the broker is away.

One SQLite file in a folder that any number of processes share. What ``add`` returned from is on
disk (``synchronous=EXTRA``); a message is deleted only after the broker has confirmed it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, time
from typing import Any

from .errors import WebhooksError
from .model import Message

DEFAULT_MAX_BYTES = 1024**3

#: Waiting for another process's lock on the file, in seconds.
_LOCK_TIMEOUT = 5.0
#: Messages taken at a time, and how long a flush keeps them from others, in seconds: one that died
#: gives them back after that, one that is slow earlier.
_BATCH = 100
_LEASE = 60.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spool (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    kwargs TEXT NOT NULL,
    spooled REAL NOT NULL,
    leased_until REAL NOT NULL DEFAULT 0
)
"""


class SpoolError(WebhooksError):
    """The spool cannot be used; says why."""


class Spool:
    """The spool in ``folder``, which is made when something is written.

    Args:
        folder: on a local disk; shared by the processes of one machine.
        max_bytes: nothing is added beyond this.
    """

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._file = folder / "spool.sqlite3"
        self._max_bytes = max_bytes

    def add(self, messages: Sequence[Message]) -> None:
        """Write all ``messages`` down or none; one whose id is there already is not repeated.

        Raises:
            SpoolError: the disk is full, the folder not writable, the size limit reached.
        """
        rows = [
            (message.id, message.task, json.dumps(dict(message.kwargs)), time())
            for message in messages
        ]
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpoolError(f"the spool {self._file} cannot be used: {error}") from None
        with self._transaction() as database:
            database.executemany(
                "INSERT OR IGNORE INTO spool (id, task, kwargs, spooled) VALUES (?, ?, ?, ?)", rows
            )
            if _used_bytes(database) > self._max_bytes:
                raise SpoolError(
                    f"the spool {self._file} has reached webhooks_spool_max_bytes "
                    f"({self._max_bytes})"
                )

    def browse(self) -> Iterator[tuple[Message, float]]:
        """Yield what waits and since when (seconds since 1970), in the order it was written.

        Nobody is kept from writing meanwhile, however slowly the messages are looked at.
        """
        last = 0
        while self._file.exists():
            with self._open() as database:
                page = database.execute(
                    "SELECT id, task, kwargs, spooled, seq FROM spool WHERE seq > ? "
                    "ORDER BY seq LIMIT ?",
                    (last, _BATCH),
                ).fetchall()
            if not page:
                return
            for row in page:
                yield _message(row), row[3]
            last = page[-1][4]

    def flush(self, send: Callable[[Message], object], limit: int | None = None) -> int:
        """Send what waits, in order, or about ``limit`` of it; return how many there were.

        Safe beside other flushes: each message is sent by one of them. Whatever ``send`` raises
        ends the flush; what was not sent stays.

        Raises:
            SpoolError: the file cannot be read or written; what was sent may be sent again.
        """
        total = 0
        while (limit is None or total < limit) and self._file.exists() and (batch := self._lease()):
            sent, deadline = 0, monotonic() + _LEASE / 2
            try:
                for _, message in batch:
                    send(message)
                    sent += 1
                    if monotonic() > deadline:
                        break  # soon others may take the rest
            finally:
                self._settle([(seq,) for seq, _ in batch], sent)
            total += sent
        return total

    def _settle(self, batch: list[tuple[int]], sent: int) -> None:
        """Delete the first ``sent`` of a batch, give back the others."""
        with self._transaction() as database:
            database.executemany("DELETE FROM spool WHERE seq = ?", batch[:sent])
            database.executemany("UPDATE spool SET leased_until = 0 WHERE seq = ?", batch[sent:])

    def _lease(self) -> list[tuple[int, Message]]:
        with self._transaction() as database:
            rows = database.execute(
                "SELECT id, task, kwargs, spooled, seq FROM spool WHERE leased_until < ? "
                "ORDER BY seq LIMIT ?",
                (time(), _BATCH),
            ).fetchall()
            database.executemany(
                "UPDATE spool SET leased_until = ? WHERE seq = ?",
                [(time() + _LEASE, row[4]) for row in rows],
            )
        return [(row[4], _message(row)) for row in rows]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(
                sqlite3.connect(self._file, timeout=_LOCK_TIMEOUT, isolation_level=None)
            ) as database:
                database.execute("PRAGMA synchronous = EXTRA")
                database.execute(_SCHEMA)
                yield database
        except sqlite3.Error as error:
            raise SpoolError(f"the spool {self._file} cannot be used: {error}") from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                if database.in_transaction:  # on a full disk SQLite has done it already
                    database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")


def _used_bytes(database: sqlite3.Connection) -> int:
    def pragma(name: str) -> int:
        value: int = database.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    return (pragma("page_count") - pragma("freelist_count")) * pragma("page_size")


def _message(row: Sequence[Any]) -> Message:
    return Message(id=row[0], task=row[1], kwargs=json.loads(row[2]))
