"""The brokers at their usual ports, with a database or virtual host that nobody else uses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import nan
from typing import Protocol
from urllib.parse import quote
from uuid import uuid4

import psutil
from kombu import Connection
from redis import Redis, RedisError

from .machine import Failed

QUEUE = "backgroundTask"
#: Keys of kombu and BullMQ that hold no message.
_NO_MESSAGES = re.compile(r"_kombu|pidbox|celeryev|:(marker|meta|events|id|stalled-check)$")


class Broker(Protocol):
    """What a benchmark needs of a broker."""

    name: str
    url: str
    version: str
    #: How long a worker may still take a message after it was told to stop consuming, in seconds.
    lag: float

    def renew(self) -> None:
        """Forget all messages."""

    def held(self) -> dict[str, int]:
        """Count what is queued, waiting, not acknowledged or parked, by queue; empty ones not."""

    def cpu_seconds(self) -> float:
        """Return the CPU time of the server since it was started; NaN where it is not known."""

    def end(self) -> None:
        """Leave nothing behind."""


class RedisBroker:
    """Redis at port 6379, its highest database that is empty."""

    name = "Redis"
    lag = 1.5

    def __init__(self) -> None:
        for number in range(15, 0, -1):
            self._client = Redis(db=number, socket_timeout=30, decode_responses=True)
            if not self._client.dbsize():
                break
        else:
            raise Failed("Redis has no database that is empty")
        self.url = f"redis://127.0.0.1:6379/{number}"
        self.version = str(self._client.info("server")["redis_version"])

    def renew(self) -> None:
        self._client.flushdb()

    def held(self) -> dict[str, int]:
        counts = {
            "list": self._client.llen,
            "zset": self._client.zcard,
            "hash": self._client.hlen,
        }
        found = {}
        for key in self._client.scan_iter(count=1000):
            name = key
            kind = str(self._client.type(key))
            # kombu notes what is not acknowledged twice, BullMQ has a hash for each job.
            if (
                kind in counts
                and not _NO_MESSAGES.search(name)
                and not name.endswith("unacked_index")
            ):
                found[name] = int(counts[kind](key))
        return {name: count for name, count in found.items() if count}

    def cpu_seconds(self) -> float:
        used = self._client.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def end(self) -> None:
        self.renew()
        self._client.close()


class RabbitBroker:
    """RabbitMQ at port 5672, a virtual host of our own."""

    name = "RabbitMQ"
    lag = 0.0

    def __init__(self) -> None:
        with Connection("amqp://guest:guest@127.0.0.1:5672//", connect_timeout=5) as connection:
            connection.connect()
            self.version = str(connection.connection.server_properties["version"])
        self._vhost = f"benchmarks-{uuid4().hex[:8]}"
        self.url = f"amqp://guest:guest@127.0.0.1:5672/{quote(self._vhost, safe='')}"
        self._made = False
        self._server = _listener(5672)

    def renew(self) -> None:
        if self._made:
            self._control("delete_vhost", self._vhost)
        self._control("add_vhost", self._vhost)
        self._control("set_permissions", "-p", self._vhost, "guest", ".*", ".*", ".*")
        self._made = True

    def held(self) -> dict[str, int]:
        arguments = ("list_queues", "-p", self._vhost, "name", "messages", "--formatter", "json")
        return {
            queue["name"]: int(queue["messages"])
            for queue in json.loads(self._control(*arguments))
            if queue["messages"] and not _NO_MESSAGES.search(queue["name"])
        }

    def _control(self, *command: str) -> str:
        done = subprocess.run(
            [_rabbitmqctl(), "--quiet", *command],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        if done.returncode:
            raise Failed(f"rabbitmqctl {' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def cpu_seconds(self) -> float:
        return sum(psutil.Process(self._server).cpu_times()[:2]) if self._server else nan

    def end(self) -> None:
        if self._made:
            self._control("delete_vhost", self._vhost)


def _rabbitmqctl() -> str:
    return shutil.which("rabbitmqctl") or "rabbitmqctl"


def _listener(port: int) -> int | None:
    """Return the process that listens there, or None where we are not allowed to know."""
    try:
        sockets = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    listening = (s for s in sockets if s.status == psutil.CONN_LISTEN and s.laddr.port == port)
    return next((s.pid for s in listening if s.pid), None)


@contextmanager
def running_brokers() -> Iterator[dict[str, Broker]]:
    """Yield the brokers that run on this machine, by name; says which one does not."""
    found: dict[str, Broker] = {}
    with ExitStack() as stack:
        for kind in (RedisBroker, RabbitBroker):
            try:
                broker: Broker = kind()
                broker.renew()
            except (OSError, RedisError, Failed) as error:
                print(f"{kind.name} cannot be used, its rows are left out: {error}")
                continue
            stack.callback(broker.end)
            found[broker.name] = broker
        yield found
