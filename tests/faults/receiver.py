"""A receiver that records every id, and that can be down, reset connections or hang."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

Mode = Literal["answer", "reset", "hang"]

#: How long it takes over an answer, in seconds: so that requests are under way when a fault comes.
TAKES = 0.005
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
#: A linger time of zero makes closing a socket send a reset.
RESET = struct.pack("ii", 1, 0)


class Receiver:
    """Answers 200 on 127.0.0.1, on one port even when it was down in between."""

    def __init__(self) -> None:
        self.attempts: list[str] = []  #: the id of every request, in the order of arrival
        self.repeated: Counter[str] = Counter()  #: requests for ids that had been answered
        self.answered: set[str] = set()
        self.mode: Mode = "answer"
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._mended = threading.Event()
        self._mended.set()
        self._open: set[socket.socket] = set()
        self._server: _Server | None = None
        self._port = 0
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def up(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), _Conversation)
        self._server.receiver = self
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections, and break those there are."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def misbehave(self, mode: Mode) -> None:
        self._mended.clear()
        self.mode = mode

    def mend(self) -> None:
        self.mode = "answer"
        self._mended.set()

    def end(self) -> None:
        self._ended.set()
        self._mended.set()
        self.down()

    def wait_for(self, enough: Callable[[], bool], what: str, timeout: float = 60) -> None:
        """Wait until ``enough`` is true of what was received."""
        with self._changed:
            assert self._changed.wait_for(enough, timeout), f"not within {timeout:g} s: {what}"

    def converse(self, connection: socket.socket, requests: Any) -> None:
        """Answer the requests on one connection."""
        self._open.add(connection)
        try:
            while delivery := _read_id(requests):
                with self._changed:
                    self.attempts.append(delivery)
                    self.repeated[delivery] += delivery in self.answered
                    self._changed.notify_all()
                self._ended.wait(TAKES)
                if self.mode == "reset":
                    connection.sendall(OK[:20])
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    return
                if self.mode == "hang":
                    self._mended.wait()
                    return
                connection.sendall(OK)
                with self._changed:
                    self.answered.add(delivery)
                    self._changed.notify_all()
        finally:
            self._open.discard(connection)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    receiver: Receiver

    def handle_error(self, *_: Any) -> None:
        """Those who hang up are what this is about."""


class _Conversation(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        receiver: Receiver = self.server.receiver  # type: ignore[attr-defined]
        receiver.converse(self.connection, self.rfile)


def _read_id(requests: Any) -> str | None:
    """Read a request and return its delivery id; None when the other end has hung up."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = requests.readline()
        if not line:
            return None
        head += line
    length = re.search(rb"(?im)^content-length: *([0-9]+)", head)
    body = requests.read(int(length[1]) if length else 0)
    return str(json.loads(body)["id"])
