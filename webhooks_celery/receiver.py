"""A small receiver to look at deliveries with; behind ``celery webhooks listen`` and ``demo``."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Headers that never hold a secret and whose values are shown.
_PLAIN = {
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    "user-agent",
}
_PLAIN_ENDINGS = ("-event", "-delivery-id", "-timestamp")


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    def header(self, ending: str) -> str:
        """Return the first header whose name ends so: the prefix is configurable."""
        for name, value in self.headers.items():
            if name.lower().endswith(ending):
                return value
        return "-"

    def shown_headers(self) -> list[tuple[str, str]]:
        """Return the headers with every value masked that might be a secret."""
        return [
            (name, value if _is_plain(name) else "********") for name, value in self.headers.items()
        ]

    def shown_body(self) -> str:
        """Return the body, indented when it is JSON."""
        text = self.body.decode("utf-8", "replace")
        try:
            return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except ValueError:
            return text


def _is_plain(name: str) -> bool:
    return name.lower() in _PLAIN or name.lower().endswith(_PLAIN_ENDINGS)


class Receiver:
    """An HTTP server in threads of its own; a context manager.

    Args:
        answer: gets each request and returns the status to answer with. Runs in the request's
            thread, so it may take its time; a wait must end when ``closing`` is set.
        host, port: where to listen; port 0 takes a free one.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self, answer: Callable[[Received], int], host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer((host, port), _handler(answer))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(answer: Callable[[Received], int]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60  # seconds that an idle connection is kept

        def do_POST(self) -> None:
            try:
                length = int(self.headers.get("Content-Length", 0))
            except ValueError:
                self.send_error(400)
                return
            body = self.rfile.read(length)
            status = answer(Received(path=self.path, headers=dict(self.headers.items()), body=body))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_PATCH = do_POST

        def log_message(self, *_: Any) -> None:
            """Print nothing: ``answer`` says what is to be said."""

    return Handler
