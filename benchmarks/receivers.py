"""Receivers that note every request: nginx, and one of our own that answers late or never."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType

from .machine import Failed, environment, executable, free_port, until

#: How long a receiver may be without a request before a measurement is given up, in seconds.
SILENCE = 60.0

_NGINX = """\
daemon off;
user {user};
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 4096; }}
http {{
    log_format ids '$msec $status $request_length $http_x_immich_delivery_id $uri';
    access_log {log} ids buffer=64k flush=100ms;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 100000000;
    keepalive_timeout 65s;
    server {{
        listen 127.0.0.1:{port} {tls} backlog=4096;
        {certificate}
        location / {{ return 204; }}
    }}
}}
"""
_CERTIFICATE = "ssl_certificate server.pem; ssl_certificate_key server.pem;"
_POST = """\
wrk.method = "POST"
wrk.body = '{"id":"8538265e-4b35-4a36-af7f-9ea850ce17d4","eventName":"PersonCreate"}'
wrk.headers["Content-Type"] = "application/json"
"""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the receiver noted it."""

    time: float  #: seconds since 1970, when the answer was sent or the peer gave up
    status: int
    length: int  #: bytes of request line, headers and body
    delivery: str
    path: str


class Log:
    """The requests of a receiver: a line each, written in its own time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def end(self) -> int:
        """Return the place where the next line will be."""
        return self._path.stat().st_size

    def since(self, place: int = 0) -> list[Request]:
        return [_request(line) for line in self._lines(place).decode().splitlines()]

    def wait_for(self, count: int, place: int, path: str = "/") -> None:
        """Wait for so many requests, of paths that begin so.

        Raises:
            Failed: there were none for a while.
        """
        seen, looked, heard = 0, place, monotonic()
        mark = f" {path}".encode()

        def enough() -> bool:
            nonlocal seen, looked, heard
            if lines := self._lines(looked):
                looked += len(lines)
                seen += lines.count(mark)
                heard = monotonic()
            if monotonic() - heard > SILENCE:
                raise Failed(f"{seen} of {count} requests, then none for {SILENCE:g} s")
            return seen >= count

        until(enough, f"{count} requests", timeout=24 * 3600)

    def _lines(self, place: int) -> bytes:
        """Return the lines from ``place`` on that are complete."""
        with self._path.open("rb") as file:
            file.seek(place)
            content = file.read()
        return content[: content.rfind(b"\n") + 1]


def _request(line: str) -> Request:
    time, status, length, delivery, path = line.split(" ")
    return Request(float(time), int(status), int(length), delivery, path)


class Receiver:
    """A receiver in a process of its own; a context manager.

    Attributes:
        name: what it is, in words.
        url: where it answers, without a path.
        ca: file with the certificate of its authority, on TLS.
        log: what it got.
    """

    name: str
    url: str
    ca: Path | None = None

    def __init__(self, command: list[str], folder: Path) -> None:
        self.log = Log(folder / "requests.log")
        self._command = command
        self._folder = folder
        self._popen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Receiver:
        with (self._folder / "receiver.txt").open("wb") as output:
            self._popen = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        until(self._answers, f"{self.name} starts", 20)
        return self

    def _answers(self) -> bool:
        host, _, port = self.url.rpartition("/")[2].partition(":")
        if self._popen is not None and self._popen.poll() is not None:
            raise Failed(f"{self.name} ended: {(self._folder / 'receiver.txt').read_text()}")
        with suppress(OSError), socket.create_connection((host, int(port)), 1):
            return True
        return False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._popen is not None:
            self._popen.terminate()
            self._popen.wait(10)

    def ceiling(self, path: str = "/", connections: int = 64) -> str:
        """Say how many requests a second it answers at most, as wrk finds."""
        wrk = executable("wrk")
        if wrk is None:
            return f"{self.name}: ceiling not known, wrk is not installed"
        script = self._folder / "post.lua"
        script.write_text(_POST)
        done = subprocess.run(
            [
                *(wrk, "-t1", f"-c{connections}", "-d3s", "--timeout", "10s", "-s", str(script)),
                f"{self.url}{path}",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        rate = [line.split()[1] for line in done.stdout.splitlines() if "Requests/sec" in line]
        if not rate:
            raise Failed(f"wrk: {done.stdout}{done.stderr}")
        return f"{self.name}: ceiling {float(rate[0]):,.0f}/s with {connections} connections (wrk)"


@contextmanager
def nginx(tls: bool = False) -> Iterator[Receiver]:
    """Run an nginx that answers 204 at once."""
    command = executable("nginx")
    if command is None:
        raise Failed("nginx is not installed")
    with _folder() as folder:
        port = free_port()
        configuration = _NGINX.format(
            user=getpass.getuser(),
            log=folder / "requests.log",
            port=port,
            tls="ssl" if tls else "",
            certificate=_CERTIFICATE if tls else "",
        )
        (folder / "nginx.conf").write_text(configuration)
        arguments = ["-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "error.log"]
        receiver = Receiver([command, *arguments], folder)
        receiver.name = "nginx with TLS" if tls else "nginx"
        receiver.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        if tls:
            receiver.ca = _certificate(folder)
        with receiver:
            yield receiver


@contextmanager
def slow_receiver(latency: float) -> Iterator[Receiver]:
    """Run a receiver that answers after ``latency`` seconds; at paths ``/hang…`` never."""
    with _folder() as folder:
        port = free_port()
        arguments = [str(port), str(latency), str(folder / "requests.log")]
        receiver = Receiver(
            [sys.executable, "-m", "benchmarks.slow_receiver", *arguments],
            folder,
        )
        receiver.name = f"receiver that answers after {latency * 1000:g} ms"
        receiver.url = f"http://127.0.0.1:{port}"
        with receiver:
            yield receiver


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _certificate(folder: Path) -> Path:
    import trustme

    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(folder / "server.pem")
    )
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    return folder / "ca.pem"
