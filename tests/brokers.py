"""What tests do to a broker: look into queues, clean up, stand in its way."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from kombu import Connection, Exchange

#: Known before any test runs, so that tests can be chosen by it.
ON_REDIS = not os.environ.get("TEST_BROKER_URL", "").startswith(("amqp", "pyamqp"))


def settings_for(broker_url: str) -> dict[str, Any]:
    """What every test app needs to use this broker well."""
    if ON_REDIS:  # the interval is how long a worker that is to stop goes on listening
        options: dict[str, Any] = {"socket_timeout": 30, "polling_interval": 0.1}
    else:
        options = {"confirm_publish": True}
    return {"broker_url": broker_url, "broker_transport_options": options}


def delete_queues(broker_url: str, names: Iterable[str]) -> None:
    with Connection(broker_url) as connection:
        if ON_REDIS:
            redis = connection.default_channel.client
            for name in names:
                # The queue, those of its priorities, and its binding.
                for key in redis.scan_iter(match=f"*{name}*", count=1000):
                    redis.delete(key)
        else:
            for name in names:
                connection.default_channel.queue_delete(name)
                Exchange(name, channel=connection.default_channel).delete()


def take(app: Celery, queue: str, timeout: float = 30) -> Any:
    """Wait for a message in ``queue``, take it out and return it."""
    with (
        app.connection_for_read() as connection,
        connection.SimpleQueue(app.amqp.queues[queue]) as messages,
    ):
        message = messages.get(timeout=timeout)
        message.ack()
        return message


def take_all(app: Celery, queue: str) -> list[Any]:
    """Take out and return the messages that are in ``queue`` now, then those that wait there."""
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        bound = app.amqp.queues[queue](channel)
        bound.declare()
        messages = list(iter(lambda: bound.get(no_ack=True), None))
        if ON_REDIS:
            raw, _ = (
                channel.client.pipeline()
                .zrange(waiting := f"{queue}:waiting", 0, -1)
                .delete(waiting)
                .execute()
            )
            messages += [channel.message_to_python(json.loads(each)) for each in raw]
        return messages


def put(app: Celery, queue: str, message: Any, **headers: Any) -> None:
    """Publish a ``message`` that was taken, with some of its headers changed."""
    with app.producer_or_acquire() as producer:
        producer.publish(
            message.body,
            routing_key=queue,
            declare=[app.amqp.queues[queue]],
            headers={**message.headers, **headers},
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            correlation_id=message.properties["correlation_id"],
        )


def outcome(app: Celery, task_id: str, timeout: float = 30) -> Any:
    """Wait until a task is over; return its result, or its exception without raising it."""
    return app.AsyncResult(task_id).get(timeout=timeout, interval=0.05, propagate=False)


def ask(app: Celery, node: str, command: str, **arguments: Any) -> Any:
    """Ask a worker something by remote control and return its answer.

    More than once: Redis drops what is said to a worker that has only just come up.
    """
    for _ in range(30):
        if answers := app.control.broadcast(
            command, arguments=arguments, destination=[node], reply=True, timeout=1
        ):
            return answers[0][node]
    raise AssertionError(f"{node} does not answer")


def arguments(message: Any) -> dict[str, Any]:
    """The arguments of the task in a ``message``."""
    _, kwargs, _ = message.payload
    return dict(kwargs)


def eta(message: Any) -> datetime:
    """When the task in a ``message`` may run."""
    return datetime.fromisoformat(message.headers["eta"])


def moved(broker_url: str, port: int) -> str:
    """The same broker at another port of this machine."""
    parts = urlsplit(broker_url)
    login = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{login}@127.0.0.1:{port}".lstrip("@")).geturl()


class Relay:
    """Stands between an app and the broker; listens, can cut the line and mend it."""

    def __init__(self, broker_url: str) -> None:
        self.traffic: list[bytearray] = []  # what was said, each way of each connection for itself
        parts = urlsplit(broker_url)
        default = 6379 if ON_REDIS else 5672
        self._broker = (parts.hostname or "127.0.0.1", parts.port or default)
        self._port = 0
        self.mend()
        self.url = moved(broker_url, self._port)

    def cut(self) -> None:
        """Break every connection; new ones are refused."""
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def mend(self) -> None:
        """Accept connections (again)."""
        listener = socket.create_server(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        self._sockets = [listener]
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                broker = socket.create_connection(self._broker)
                self._sockets += [client, broker]
                for source, sink in ((client, broker), (broker, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        said = bytearray()
        self.traffic.append(said)
        with suppress(OSError):
            while data := source.recv(65536):
                said += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
