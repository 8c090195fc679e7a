"""The process behind ``receivers.slow_receiver``: ``PORT LATENCY LOG``.

As little as will do, so that it keeps up: of a request only the length of the body, the path and
the delivery id are looked at.
"""

from __future__ import annotations

import asyncio
import re
import sys
from functools import partial
from pathlib import Path
from time import time
from typing import TextIO

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_DELIVERY = re.compile(rb"\r\nx-immich-delivery-id: *(\S+)", re.IGNORECASE)
_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
#: What nginx notes for a peer that went away before it was answered.
_GONE = 499


class Connection(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self, latency: float, log: TextIO) -> None:
        self._latency = latency
        self._log = log
        self._got = b""
        self._unanswered = ""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end:
            return
        found = _LENGTH.search(head)
        length = int(found[1]) if found else 0
        if len(body) < length:
            return
        size = len(head) + len(end) + length
        self._got = self._got[size:]
        delivery = _DELIVERY.search(head)
        path = head.split(b" ", 2)[1].decode()
        self._unanswered = f"{size} {delivery[1].decode() if delivery else '-'} {path}\n"
        if not path.startswith("/hang"):
            asyncio.get_running_loop().call_later(self._latency, self._answer)

    def _answer(self) -> None:
        if self._unanswered:
            self._transport.write(_ANSWER)
            self._note(204)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._unanswered:
            self._note(_GONE)

    def _note(self, status: int) -> None:
        self._log.write(f"{time():.3f} {status} {self._unanswered}")
        self._unanswered = ""


async def serve(port: int, latency: float, log: TextIO) -> None:
    """Answer until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        partial(Connection, latency, log), "127.0.0.1", port, backlog=4096
    )
    async with server:
        while True:
            await asyncio.sleep(0.1)
            log.flush()


if __name__ == "__main__":
    with Path(sys.argv[3]).open("a", buffering=2**16) as output:
        asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]), output))
