"""HTTP connections with one limit for everything, and keeping them for the next attempt."""

from __future__ import annotations

import http.client
import io
import threading
from collections import OrderedDict
from http import HTTPStatus
from time import monotonic
from typing import Any

from urllib3.util.wait import wait_for_read

from .model import Event
from .request import body
from .route import Route, authority
from .sockets import Limits, Resolver, connect, start_tls

#: A kept connection that was idle longer is not used again, in seconds: servers close idle ones
#: (gunicorn after 2 s, Node after 5 s) and a request sent into a closing one is lost.
MAX_IDLE = 1.5
#: Most idle connections kept in one process, whatever the number of hooks: each is an open file,
#: and a process may have only 256 of them on macOS.
MAX_KEPT = 128


class Connection(http.client.HTTPConnection):
    """An HTTP connection, through proxy and TLS where the route wants them, within limits.

    Attributes:
        phase: what it is doing, in words, for whoever asks why it failed or took so long.
        peer: the one at the other end, in words.
    """

    def __init__(self, route: Route, resolver: Resolver) -> None:
        super().__init__(route.host, route.port)
        self.default_port = route.default_port  # left out of the Host header
        self.response_class = Response
        self.route = route
        self.phase = self.peer = ""
        self.limits: Limits | None = None
        self._resolver = resolver

    def post(self, delivery: str, event: Event, limits: Limits) -> bool:
        """Send the request; return whether it went out whole, as only then is there a next one."""
        route = self.route
        self.limits = limits
        if self.sock is not None:
            self.sock.limits = limits  # type: ignore[union-attr]
        self.phase = "sending the request"
        try:
            self.request(
                route.hook.method,
                route.target,
                body(delivery, event),
                route.headers.for_delivery(delivery, event),
            )
        except (BrokenPipeError, ConnectionResetError):
            if self.phase != "sending the request":
                raise
            return False  # it may have answered before it closed: 413, say
        self.phase = "waiting for the answer"
        return True

    def connect(self) -> None:
        route, limits = self.route, self.limits
        assert limits is not None
        host, port = route.proxy or (route.host, route.port)
        self.peer = f"the proxy {authority(host, port)}" if route.proxy else route.receiver
        self.phase = f"looking up {host}"
        addresses = self._resolver.resolve(host, port, limits)
        self.phase = f"connecting to {self.peer}"
        sock = connect(addresses, limits)
        self.sock = sock
        if route.tunnel:
            self.phase = f"asking {self.peer} for a tunnel"
            sock.sendall(route.tunnel + b"\r\n")
            with Response(sock, method="CONNECT") as response:
                response.begin()
            if not 200 <= response.status < 300:
                raise TunnelRefused(response.status)
            self.peer = f"{route.receiver} (through {self.peer})"
        if route.tls:
            self.phase = "shaking hands over TLS"
            self.sock = start_tls(route.tls, sock, route.host.rstrip("."))
        self.phase = "sending the request"


class TunnelRefused(OSError):
    """A proxy answered with another status than 2xx, its first argument."""


class Response(http.client.HTTPResponse):
    """An answer. Interim ones (1xx) are skipped; one that ends within the headers is none."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lines = self.fp = _Lines(self.fp.detach())

    def begin(self) -> None:
        super().begin()
        while 100 <= self.status < 200 and self.status != HTTPStatus.SWITCHING_PROTOCOLS:
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()
        if self._lines.broken_off:
            raise http.client.RemoteDisconnected("")


class _Lines(io.BufferedReader):
    """Notices when a line has no end, which http.client takes for the end of the headers."""

    broken_off = False

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n"):
            self.broken_off = True
        return line


class KeptConnections:
    """Idle connections, the latest used first; thread-safe, bounded in number and idle time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._by_age: OrderedDict[Connection, float] = OrderedDict()  # oldest first
        self._by_route: dict[Route, list[Connection]] = {}

    def take(self, route: Route) -> Connection | None:
        """Return an idle connection of ``route`` that its peer has not closed, or None."""
        while True:
            with self._lock:
                stale = self._drop_stale()
                idle = self._by_route.get(route)
                connection = idle[-1] if idle else None
                if connection is not None:
                    self._forget(connection)
            for old in stale:
                old.close()
            if connection is None:
                return None
            # Readable without a request under way: the peer has closed it.
            if not wait_for_read(connection.sock, timeout=0.0):
                return connection
            connection.close()

    def put(self, connection: Connection) -> None:
        """Keep ``connection`` for the next attempt."""
        with self._lock:
            self._by_age[connection] = monotonic()
            self._by_route.setdefault(connection.route, []).append(connection)
            stale = self._drop_stale()
        for old in stale:
            old.close()

    def close(self) -> None:
        """Close all of them, now and from now on."""
        with self._lock:
            self._closed = True
            stale = self._drop_stale()
        for old in stale:
            old.close()

    def _drop_stale(self) -> list[Connection]:
        """Forget and return what is idle too long or one too many; the lock must be held."""
        stale = []
        oldest_allowed = monotonic() - MAX_IDLE
        most_allowed = 0 if self._closed else MAX_KEPT
        while self._by_age:
            connection, since = next(iter(self._by_age.items()))
            if since >= oldest_allowed and len(self._by_age) <= most_allowed:
                break
            self._forget(connection)
            stale.append(connection)
        return stale

    def _forget(self, connection: Connection) -> None:
        del self._by_age[connection]
        idle = self._by_route[connection.route]
        idle.remove(connection)
        if not idle:
            del self._by_route[connection.route]
