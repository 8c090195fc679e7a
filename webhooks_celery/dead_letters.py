"""The dead letters of an app: a durable queue that no worker consumes.

Letters are kept by the broker like any message. Browsing leaves them there; replaying and
discarding remove one only after it has been dealt with, so an interruption loses nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from time import monotonic
from typing import Any, Protocol

from kombu import Queue
from kombu.exceptions import ContentDisallowed, DecodeError

from .errors import WebhooksError
from .model import DeadLetter
from .publisher import RETRY_POLICY, Publisher

logger = logging.getLogger("webhooks_celery")

#: Letters fetched from Redis at a time.
_PAGE = 500
#: A replay or discard on Redis that stops renewing its lock is taken for dead after this, seconds.
_LOCK_TIMEOUT = 60


class DeadLettersBusy(WebhooksError):
    """Somebody else is replaying or discarding; only Redis needs this turn-taking."""

    def __str__(self) -> str:
        return (
            "Somebody else is replaying or discarding dead letters; try again when that is done, "
            f"or {_LOCK_TIMEOUT} seconds after it was killed."
        )


class _Shelf(Protocol):
    """How one kind of broker gives out letters, oldest first, and removes one."""

    def letters(self) -> Iterator[tuple[DeadLetter, Any]]: ...

    def remove(self, token: Any) -> None: ...


class DeadLetters:
    """Park, browse and take the dead letters kept in ``queue``.

    Every method can raise what kombu raises when the broker cannot be reached
    (``kombu.exceptions.OperationalError``).
    """

    def __init__(self, queue: str, publisher: Publisher) -> None:
        self._publisher = publisher
        # A classic queue: quorum queues count a browse as a failed delivery and drop a message
        # after some.
        self._queue = Queue(queue, durable=True, queue_arguments={"x-queue-type": "classic"})

    def park(self, *letters: DeadLetter) -> None:
        """Add letters; returns when the broker has taken them."""
        with self._publisher.producer() as producer:
            for letter in letters:
                producer.publish(
                    asdict(letter),
                    serializer="json",
                    exchange="",
                    routing_key=self._queue.name,
                    declare=[self._queue],
                    delivery_mode="persistent",
                    retry=True,
                    retry_policy=RETRY_POLICY,
                )

    def browse(self) -> Iterator[DeadLetter]:
        """Yield the letters, oldest first, and leave them where they are."""
        with self._shelf(exclusive=False) as shelf:
            for letter, _ in shelf.letters():
                yield letter

    def take(
        self, wanted: Callable[[DeadLetter], bool], act: Callable[[DeadLetter], object]
    ) -> Iterator[DeadLetter]:
        """Call ``act`` with each wanted letter, oldest first, then remove and yield it.

        Stopped between the two, a letter is acted on again the next time; never lost.

        Raises:
            DeadLettersBusy: another ``take`` is under way.
        """
        with self._shelf(exclusive=True) as shelf:
            for letter, token in shelf.letters():
                if wanted(letter):
                    act(letter)
                    shelf.remove(token)
                    yield letter

    @contextmanager
    def _shelf(self, *, exclusive: bool) -> Iterator[_Shelf]:
        with self._publisher.producer() as producer:
            connection = producer.connection
            connection.ensure_connection(max_retries=1)
            channel = connection.channel()
            try:
                declared = self._queue(channel).queue_declare()
                count = declared.message_count
                if connection.transport.driver_type == "redis":
                    with _RedisShelf.open(channel, self._queue.name, count, exclusive) as shelf:
                        yield shelf
                else:
                    yield _Shelved(self._queue(channel), count)
            except (KeyboardInterrupt, SystemExit):
                # Perhaps in the middle of an answer: another could not be understood any more.
                # The connection is not closed but dropped, which gives back as well.
                raise
            except BaseException:
                channel.close()
                raise
            channel.close()  # gives back what was got and not removed, in its old order


class _Shelved:
    """Letters of a broker with real acknowledgement: got, and given back when the channel closes.

    Two takers never get the same letter; while one browses, others do not see what it has got.
    """

    def __init__(self, queue: Queue, count: int) -> None:
        self._queue = queue
        self._count = count

    def letters(self) -> Iterator[tuple[DeadLetter, Any]]:
        # Not more than there were: a replayed letter may be parked again at once.
        for _ in range(self._count):
            message = self._queue.get()
            if message is None:
                return
            letter = _letter(self._queue.name, message)
            if letter is not None:
                yield letter, message

    def remove(self, token: Any) -> None:
        token.ack()


class _RedisShelf:
    """Letters in a Redis list, newest on the left, read in place.

    kombu's emulated acknowledgement would take letters away from others, and an interrupted reader
    would keep them until a worker's visibility timeout.
    """

    def __init__(self, client: Any, channel: Any, key: str, count: int, lock: Any) -> None:
        self._client = client
        self._channel = channel
        self._key = key
        self._count = count
        self._lock = lock
        self._renew = monotonic() + _LOCK_TIMEOUT / 4
        self._kept = 0  # letters passed over, counted from the right

    @classmethod
    @contextmanager
    def open(cls, channel: Any, queue: str, count: int, exclusive: bool) -> Iterator[_RedisShelf]:
        from redis import Redis

        client = Redis(connection_pool=channel.pool)
        key = f"{channel.global_keyprefix}{queue}"
        lock = client.lock(f"{key}.lock", timeout=_LOCK_TIMEOUT) if exclusive else None
        if lock is not None and not lock.acquire(blocking=False):
            raise DeadLettersBusy
        try:
            yield cls(client, channel, key, count, lock)
        finally:
            if lock is not None and lock.owned():
                lock.release()

    def letters(self) -> Iterator[tuple[DeadLetter, Any]]:
        left = self._count
        while left > 0:
            right = -1 - self._kept
            page = self._client.lrange(self._key, right - min(_PAGE, left) + 1, right)
            if not page:
                return
            for raw in reversed(page):
                self._kept += 1
                left -= 1
                letter = self._letter(raw)
                if letter is not None:
                    yield letter, raw
                self._keep_lock()

    def remove(self, token: Any) -> None:
        self._client.lrem(self._key, -1, token)
        self._kept -= 1

    def _letter(self, raw: bytes) -> DeadLetter | None:
        try:
            message = self._channel.message_to_python(json.loads(raw))
        except (ValueError, TypeError, KeyError) as error:
            _pass_over(self._key, error)
            return None
        return _letter(self._key, message)

    def _keep_lock(self) -> None:
        if self._lock is None or monotonic() < self._renew:
            return
        from redis.exceptions import LockError

        try:
            self._lock.reacquire()
        except LockError:
            raise DeadLettersBusy from None
        self._renew = monotonic() + _LOCK_TIMEOUT / 4


def _letter(queue: str, message: Any) -> DeadLetter | None:
    try:
        return DeadLetter(**message.decode())
    except (DecodeError, ContentDisallowed, TypeError) as error:
        _pass_over(queue, error)
        return None


def _pass_over(queue: str, problem: Exception) -> None:
    """Tell of a message that somebody else must have put there, and leave it alone."""
    text = "the queue %s holds a message that is no dead letter of this version (%s); passed over"
    logger.warning(text, queue, problem)
