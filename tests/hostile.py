"""A scripted peer on a raw socket: whatever a receiver, a proxy or a broken box in between may do.

    with Peer(answer(503)) as peer:
        ...  # send something to peer.url("/path")
    assert peer.requests[0].header("content-type") == "application/json"

A script is a function that gets one accepted connection, a `Wire`, and runs in a thread of its own.
The functions below make scripts. One that keeps its client waiting goes on until the client has
gone or the peer is closed: a client without a deadline hangs.
"""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

#: Seconds between two bytes that are dripped: each one comes well before a timeout per read ends.
DRIP = 0.03


@dataclass(frozen=True)
class Request:
    """One request as it came over the wire."""

    connection: int  #: number of the connection it came over, from 1
    raw: bytes  #: all of it, byte for byte
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Return the values of every header of this name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str:
        """Return the value of the one header of this name."""
        (value,) = self.all(name)
        return value


class Gone(OSError):
    """The client has closed the connection."""


class Wire:
    """One accepted connection.

    Attributes:
        sent: bytes of answers that the operating system has taken so far.
    """

    def __init__(self, peer: Peer, sock: socket.socket, number: int) -> None:
        self.peer = peer
        self.number = number
        self.sent = 0
        self._sock = sock
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._unread = b""

    def start_tls(self, context: ssl.SSLContext, every: float | None = None) -> None:
        """Shake hands as the server; with ``every``, each byte so many seconds after the last."""
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._pump(self._tls.do_handshake, every)

    def read_request(self) -> Request | None:
        """Return the next request, or None when the client has closed the connection."""
        while b"\r\n\r\n" not in self._unread:
            if not self.read_some():
                return None
        head, _, rest = self._unread.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = tuple((name, value) for name, _, value in (x.partition(": ") for x in lines))
        length = sum(int(value) for name, value in headers if name.lower() == "content-length")
        while len(rest) < length:
            if not self.read_some():
                return None
            rest = self._unread[len(head) + 4 :]
        self._unread = rest[length:]
        raw = head + b"\r\n\r\n" + rest[:length]
        request = Request(self.number, raw, method, target, headers, rest[:length])
        self.peer.requests.append(request)
        return request

    def send(self, data: bytes, every: float | None = None) -> None:
        """Send everything; with ``every``, each byte so many seconds after the last."""
        if self._tls is None:
            self._send_raw(data, every)
        for start in range(0, len(data) if self._tls else 0, 16384):
            tls = self._tls
            assert tls is not None
            piece = data[start : start + 16384]
            self._pump(lambda tls=tls, piece=piece: tls.write(piece), every)

    def stall(self) -> None:
        """Say nothing more until the client has gone."""
        while self._sock.recv(65536):
            pass

    def reset(self) -> None:
        """Close the connection with a reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close the connection, without TLS's goodbye."""
        self._sock.close()

    def shut_down(self) -> None:
        """Wake up whoever is blocked on this connection."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def read_some(self) -> bool:
        """Read what comes next; return False when the client has closed the connection."""
        if self._tls is None:
            data = self._sock.recv(65536)
        else:
            tls = self._tls
            try:
                data = self._pump(lambda: tls.read(65536), None)
            except (Gone, ssl.SSLError):
                data = b""
        self._unread += data
        return bool(data)

    def _pump(self, action: Callable[[], object], every: float | None) -> bytes:
        while True:
            try:
                result = action()
            except ssl.SSLWantReadError:
                self._send_raw(self._outgoing.read(), every)
                data = self._sock.recv(65536)
                if not data:
                    raise Gone from None
                self._incoming.write(data)
            except ssl.SSLError:
                self._send_raw(self._outgoing.read(), None)  # the alert
                raise
            else:
                self._send_raw(self._outgoing.read(), every)
                return result if isinstance(result, bytes) else b""

    def _send_raw(self, data: bytes, every: float | None) -> None:
        view = memoryview(data)
        while view:
            if every is not None and self.peer.closing.wait(every):
                raise Gone
            count = self._sock.send(view if every is None else view[:1])
            self.sent += count
            view = view[count:]


Script = Callable[[Wire], None]


class Peer:
    """Listens on a port of its own and runs a script for each connection; a context manager.

    Attributes:
        requests: what came in, in the order in which it was complete.
        wires: the accepted connections, first to last.
        closing: set when this peer closes; what a script waits for must end then.
    """

    def __init__(
        self, script: Script, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.requests: list[Request] = []
        self.wires: list[Wire] = []
        self.closing = threading.Event()
        self._script = script
        self._tls = tls
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()  # one that is listed is started
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        # Small buffers, which accepted connections take over: what a client does not read or a
        # peer does not read is felt at the other end soon.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        self._listener.bind((host, 0))
        self._listener.listen(256)
        self.host = host
        self.port: int = self._listener.getsockname()[1]

    def url(self, path: str = "/", host: str | None = None, scheme: str | None = None) -> str:
        name = host or (f"[{self.host}]" if ":" in self.host else self.host)
        return f"{scheme or ('https' if self._tls else 'http')}://{name}:{self.port}{path}"

    def wait_for_scripts(self, seconds: float = 30) -> None:
        """Wait until every script is over: each has seen that its client is gone."""
        with self._starting:
            scripts = self._threads[1:]
        for thread in scripts:
            thread.join(seconds)
            assert not thread.is_alive(), "the client has left a connection open"

    def __enter__(self) -> Peer:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept() up on Linux …
        self._listener.close()  # … and this does elsewhere
        for wire in self.wires:
            wire.shut_down()
        for thread in self._threads:
            thread.join(10)
        for wire in self.wires:
            wire.close()

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        with self._starting:
            self._threads.append(thread)
            thread.start()

    def _accept(self) -> None:
        for number in itertools.count(1):
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire = Wire(self, sock, number)
            self.wires.append(wire)
            self._start(lambda wire=wire: self._run(wire))

    def _run(self, wire: Wire) -> None:
        with suppress(OSError):
            if self._tls is not None:
                wire.start_tls(self._tls)
            self._script(wire)
        wire.close()


def message(
    status: int | str = 200,
    body: bytes = b"",
    headers: Iterable[tuple[str, str]] = (),
    length: int | None = None,
) -> bytes:
    """Return the bytes of an answer; ``length`` is the Content-Length that it claims."""
    lines = [f"HTTP/1.1 {status} Whatever" if isinstance(status, int) else status]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(data), extension, data)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def answer(
    status: int | str = 200, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()
) -> Script:
    """Answer every request on a connection alike and keep it open."""
    data = message(status, body, headers)
    return raw(data, then="serve")


def raw(data: bytes, then: str = "stall") -> Script:
    """Read a request and send ``data``; ``then`` stall, close, reset, or serve the next one."""

    def script(wire: Wire) -> None:
        while wire.read_request() is not None:
            wire.send(data)
            if then == "stall":
                wire.stall()
            if then == "reset":
                wire.reset()
            if then != "serve":
                return

    return script


def echo(
    disguise: Callable[[bytes], bytes] = bytes,
    status: int = 400,
    content_type: str = "text/plain; charset=utf-8",
) -> Script:
    """Put the whole request into the answer's body."""

    def script(wire: Wire) -> None:
        while (request := wire.read_request()) is not None:
            wire.send(message(status, disguise(request.raw), [("Content-Type", content_type)]))

    return script


def never_answer(wire: Wire) -> None:
    while wire.read_request() is not None:
        pass


def never_read(wire: Wire) -> None:
    wire.peer.closing.wait()


def reset_at_once(wire: Wire) -> None:
    wire.reset()


def close_at_once(wire: Wire) -> None:
    wire.close()


def early(data: bytes, then: str = "reset") -> Script:
    """Send ``data`` as soon as anything comes in, then reset or close."""

    def script(wire: Wire) -> None:
        wire.read_some()
        wire.send(data)
        if then == "reset":
            wire.reset()

    return script


def drip(start: bytes, repeat: bytes, every: float = DRIP) -> Script:
    """Send ``start``, then the bytes of ``repeat`` for ever, one at a time."""

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(start)
        while True:
            wire.send(repeat, every)

    return script


def drip_whole(data: bytes, every: float = DRIP) -> Script:
    """Send ``data`` once, byte by byte, then stall: with TLS, a record that comes in bytes."""

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(data, every)
        wire.stall()

    return script


def flood(start: bytes, repeat: bytes, total: int = 64 * 2**20) -> Script:
    """Send ``start``, then ``repeat`` as fast as it goes; ``total`` bytes at most, then stall."""

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(start)
        block = repeat * max(1, 65536 // len(repeat))
        while wire.sent < total:
            wire.send(block)
        wire.stall()

    return script


def drip_handshake(context: ssl.SSLContext, every: float = DRIP) -> Script:
    """Shake hands over TLS, one byte at a time."""

    def script(wire: Wire) -> None:
        wire.start_tls(context, every)
        never_answer(wire)

    return script


def tunnel(
    then: Script, tls: ssl.SSLContext | None = None, opened: bytes = b"HTTP/1.1 200 OK\r\n\r\n"
) -> Script:
    """Be a proxy that opens a tunnel, and the receiver at its other end."""

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(opened)
        if tls is not None:
            wire.start_tls(tls)
        then(wire)

    return script


@dataclass(frozen=True)
class Stall:
    """A way to keep a client waiting.

    Attributes:
        script: what the peer does.
        phase: what the client is doing meanwhile, as its error message says it.
        tls: whether the client speaks https; the peer then shakes hands unless ``bare``.
        bare: the script sees the raw connection also under https.
        payload: size of the event's payload in bytes.
    """

    script: Script | Callable[[ssl.SSLContext], Script]
    phase: str
    tls: bool = False
    bare: bool = False
    payload: int = 2


_WAITING = "waiting for the answer"
_BODY = "reading the answer's body"
_HANDSHAKE = "shaking hands over TLS"
_OK = b"HTTP/1.1 200 OK\r\n"

#: Every way to keep a client waiting that needs no name server and no proxy.
STALLS = {
    "never reads": Stall(never_read, "sending the request", payload=16 * 2**20),
    "never answers": Stall(never_answer, _WAITING),
    "stalls in the status line": Stall(raw(b"HTTP/1.1 2"), _WAITING),
    "drips the status line": Stall(drip(b"HTTP/1.1 200 O", b"K"), _WAITING),
    "stalls in the headers": Stall(raw(_OK + b"X-Half: "), _WAITING),
    "drips a header": Stall(drip(_OK + b"X-Long: ", b"a"), _WAITING),
    "drips interim answers": Stall(drip(b"", b"HTTP/1.1 103 E\r\n\r\n", DRIP / 10), _WAITING),
    "stalls before the body": Stall(raw(message(body=b"", length=10)), _BODY),
    "stalls in the body": Stall(raw(message(body=b"12345", length=10)), _BODY),
    "stalls in an error's body": Stall(raw(message(500, body=b"12345", length=10)), _BODY),
    "drips the body": Stall(drip(message(length=10_000), b"b"), _BODY),
    "drips a body without length": Stall(drip(_OK + b"\r\n", b"b"), _BODY),
    "drips chunks": Stall(drip(CHUNKED, chunk(b"c")), _BODY),
    "drips a chunk's size": Stall(drip(CHUNKED, b"0"), _BODY),
    "drips trailers": Stall(drip(CHUNKED + b"0\r\n", b"X: y\r\n"), _BODY),
    "stalls in the handshake": Stall(never_read, _HANDSHAKE, tls=True, bare=True),
    "drips the handshake": Stall(drip_handshake, _HANDSHAKE, tls=True, bare=True),
    "never answers over TLS": Stall(never_answer, _WAITING, tls=True),
    "never reads over TLS": Stall(never_read, "sending the request", tls=True, payload=16 * 2**20),
    "drips a TLS record": Stall(drip_whole(message(body=bytes(4000))), _WAITING, tls=True),
    "drips a TLS record of the body": Stall(
        drip(message(length=100_000), bytes(1), DRIP / 10), _BODY, tls=True
    ),
}


def stalling_peer(stall: Stall, tls: ssl.SSLContext) -> Peer:
    """Return a peer that keeps its client waiting in this way; the URL's scheme is up to you."""
    script = stall.script
    if script is drip_handshake:
        script = drip_handshake(tls)
    return Peer(script, tls if stall.tls and not stall.bare else None)  # type: ignore[arg-type]
