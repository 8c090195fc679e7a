"""Sockets with one limit for everything that is done with them.

A socket's own timeout starts anew at every call, so a peer that sends a byte now and then can hold
a reader for ever. Here each call gets what is left until the deadline, and no more bytes are taken
in than agreed. Works alike on threads, forked processes and gevent.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from time import monotonic
from typing import Any


class TooMuch(OSError):
    """The peer has sent more than was to be taken in."""


class Limits:
    """What one attempt may use up: a time, which begins now, and a number of bytes received."""

    def __init__(self, *, milliseconds: int, size: int) -> None:
        self._deadline = monotonic() + milliseconds / 1000
        self._bytes_left = size

    def remaining(self) -> float:
        """Return the seconds that are left.

        Raises:
            TimeoutError: when there are none.
        """
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def received(self, count: int) -> None:
        """Count bytes that have come in.

        Raises:
            TooMuch: they are more than agreed.
        """
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise TooMuch


class _Limited:
    """Mixed into a socket class: before it blocks, its timeout becomes what is left."""

    limits: Limits | None = None

    def _arm(self) -> None:
        if self.limits is not None:
            self.settimeout(self.limits.remaining())  # type: ignore[attr-defined]

    def recv_into(self, *args: Any) -> Any:
        self._arm()
        count = super().recv_into(*args)  # type: ignore[misc]
        if self.limits is not None:
            self.limits.received(count)
        return count

    def send(self, *args: Any, **kwargs: Any) -> Any:
        self._arm()
        return super().send(*args, **kwargs)  # type: ignore[misc]

    def sendall(self, *args: Any) -> Any:
        self._arm()
        return super().sendall(*args)  # type: ignore[misc]

    def do_handshake(self, *args: Any) -> Any:
        self._arm()
        return super().do_handshake(*args)  # type: ignore[misc]

    def _wait(self, *args: Any, **kwargs: Any) -> Any:
        # gevent's sockets call this each time they block; without it a TLS record that arrives
        # byte by byte would get the whole timeout for every byte.
        self._arm()
        return super()._wait(*args, **kwargs)  # type: ignore[misc]


class LimitedSocket(_Limited, socket.socket):
    """A TCP socket with ``limits``."""


class LimitedTLSSocket(_Limited, ssl.SSLSocket):
    """A TLS socket with ``limits``."""


def keep_limits(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make ``context`` wrap sockets into ones that can have limits."""
    context.sslsocket_class = LimitedTLSSocket
    return context


def start_tls(
    context: ssl.SSLContext, sock: LimitedSocket, server_hostname: str
) -> LimitedTLSSocket:
    """Shake hands on ``sock`` within its limits; takes the socket over."""
    wrapped = context.wrap_socket(
        sock, server_hostname=server_hostname, do_handshake_on_connect=False
    )
    assert isinstance(wrapped, LimitedTLSSocket)
    wrapped.limits = sock.limits
    try:
        wrapped.do_handshake()
    except BaseException:
        wrapped.close()
        raise
    return wrapped


class Resolver:
    """Looks host names up with a bounded wait.

    ``getaddrinfo`` cannot be interrupted, so it runs in a thread of its own. Look-ups of one name
    that are under way at the same time share that thread: a dead name server holds one thread for
    a name, however many attempts ask.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[list[Any]]] = {}

    def resolve(self, host: str, port: int, limits: Limits) -> list[Any]:
        """Return the addresses for a TCP connection, in the form of ``socket.getaddrinfo``.

        Raises:
            TimeoutError: when the time is over first.
            OSError, UnicodeError: when there is no such host.
        """
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                socket.inet_pton(family, host)
            except (OSError, ValueError):
                continue  # not an address of this kind
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
        try:
            found = self._look_up(host).result(limits.remaining())
        except FutureTimeoutError:  # in Python 3.10 not yet the built-in one
            raise TimeoutError from None
        return [(*info, (address[0], port, *address[2:])) for *info, address in found]

    def _look_up(self, host: str) -> Future[list[Any]]:
        """Return the answer that is under way, or ask."""
        with self._lock:
            answer = self._under_way.get(host)
            if answer is None:
                answer = Future()
                thread = threading.Thread(
                    target=self._ask, args=(host, answer), name=f"resolve {host}", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as error:
                    raise OSError(errno.ENOMEM, str(error)) from error
                self._under_way[host] = answer
        return answer

    def _ask(self, host: str, answer: Future[list[Any]]) -> None:
        try:
            try:
                found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            finally:
                with self._lock:
                    self._under_way.pop(host, None)
        except Exception as error:  # noqa: BLE001 - whoever waits for the answer gets it
            answer.set_exception(error)
        else:
            answer.set_result(found)


def connect(addresses: list[Any], limits: Limits) -> LimitedSocket:
    """Open a TCP connection to the first of ``addresses`` that accepts one.

    An address that does not answer may use an equal share of the time, so that the next ones
    (IPv4 behind a dead IPv6, say) get their turn.

    Args:
        addresses: in the form of ``socket.getaddrinfo``.
        limits: of this and of all that is done with the connection until it gets new ones.

    Raises:
        TimeoutError: when the time is over first.
        OSError: what the last address said.
    """
    failure = OSError("no address")
    for tried, address in enumerate(addresses):
        try:
            return _connect_to(address, limits, len(addresses) - tried)
        except OSError as error:
            failure = error
    try:
        raise failure
    finally:
        del failure  # it refers to this frame, and this frame to it


def _connect_to(address: Any, limits: Limits, sharers: int) -> LimitedSocket:
    family, kind, protocol, _, where = address
    sock = LimitedSocket(family, kind, protocol)
    try:
        sock.settimeout(limits.remaining() / sharers)
        sock.connect(where)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    sock.limits = limits
    return sock
