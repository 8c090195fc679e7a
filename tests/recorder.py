"""An HTTP receiver that records every byte it gets and answers as told; knows only HTTP."""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from collected import Collected


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as it came in."""

    head: bytes  #: request line and headers, without the empty line
    body: bytes
    arrived: datetime

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode("latin-1")

    @property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].decode("latin-1")

    @property
    def resource(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]

    @property
    def headers(self) -> dict[str, str]:
        """Names as they were written, in the order in which they came."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = [tuple(line.split(": ", 1)) for line in lines]
        assert len(dict(pairs)) == len(pairs), f"a header came twice: {self.head!r}"
        return dict(pairs)


#: What to answer: a status, a whole response, or something that makes one.
Answer = int | bytes | Callable[[Request], bytes]


class Recorder:
    """Answers 200 unless ``answer`` says otherwise for a path."""

    def __init__(self) -> None:
        self.closing = threading.Event()
        self._received: Collected[Request] = Collected()
        self._scripts: dict[str, list[Answer]] = {}
        self._server = _Server(("127.0.0.1", 0), _Conversation)
        self._server.recorder = self
        # A short poll makes closing quick; arriving requests do not wait for it.
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def requests(self) -> list[Request]:
        """What has come so far."""
        return list(self._received.items)

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def answer(self, path: str, *answers: Answer) -> str:
        """Answer requests for ``path`` one after the other; the last one again and again.

        Returns the URL to send them to.
        """
        self._scripts[path] = list(answers)
        return self.url(path)

    def never(self, _: Request) -> bytes:
        """An answer that does not come."""
        self.closing.wait()
        return b""

    def to(self, path: str) -> list[Request]:
        """The requests for ``path``, whatever their query."""
        return [request for request in self.requests if request.resource == path]

    def wait_for(self, count: int, path: str | None = None, timeout: float = 30) -> list[Request]:
        """Wait until ``count`` requests (for ``path``) have come, and return them."""

        def come() -> list[Request]:
            return self.requests if path is None else self.to(path)

        in_time = self._received.wait_until(lambda _: len(come()) >= count, timeout)
        assert in_time, f"{len(come())} of {count} requests in {timeout} s: {self.requests}"
        return come()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def record(self, request: Request) -> Answer:
        script = self._scripts.get(request.resource, [200])
        self._received.add(request)
        return script.pop(0) if len(script) > 1 else script[0]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False  # whoever still waits for an answer is not waited for
    request_queue_size = 128
    recorder: Recorder

    def handle_error(self, *_: Any) -> None:
        """A peer that hangs up, as one does at its deadline, is no news."""


class _Conversation(socketserver.StreamRequestHandler):
    """One connection, kept open as HTTP/1.1 does."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        recorder: Recorder = self.server.recorder  # type: ignore[attr-defined]
        while request := self._read():
            answer = recorder.record(request)
            if isinstance(answer, int):
                answer = b"HTTP/1.1 %d Scripted\r\nContent-Length: 0\r\n\r\n" % answer
            elif not isinstance(answer, bytes):
                answer = answer(request)
            self.wfile.write(answer)

    def _read(self) -> Request | None:
        """The next request; None when the other end has hung up."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return None
            head += line
        length = re.search(rb"(?im)^content-length: *([0-9]+)", head)
        body = self.rfile.read(int(length[1]) if length else 0)
        return Request(head=head[:-4], body=body, arrived=datetime.now(timezone.utc))
