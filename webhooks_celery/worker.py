"""What a worker does at boot: check the file and say what it will deliver, or refuse to start."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from celery import bootsteps, signals
from celery.worker.control import inspect_command

from .broker import agree_on_queue, fit_redis, limits_of, webhooks_queue
from .config import config_of
from .describe import describe_config, hook_line
from .emitter import flush_spool
from .errors import EX_CONFIG, ConfigError
from .plan import problems
from .shares import Shares
from .tasks import WebhookDelivery

logger = logging.getLogger("webhooks_celery")

#: Seconds between looks into the spool.
FLUSH_INTERVAL = 5.0
#: Messages sent in one go.
FLUSH_BATCH = 100

#: Held while spooled events are sent, and while a process forks: a child of the prefork pool that
#: inherited a lock of ours, kombu's or SQLite's in the hands of that thread would wait for ever.
_sending = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_sending.acquire,
        after_in_parent=_sending.release,
        after_in_child=_sending.release,
    )


class WebhooksStep(bootsteps.StartStopStep):
    """Reads the webhooks file before anything is consumed; sends what was spooled meanwhile.

    A bootstep, because Celery swallows what a ``worker_init`` receiver raises.
    """

    label = "Webhooks"
    # After the pool: its children are forked before our thread begins, which ends before they do.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        app = worker.app
        try:
            config = config_of(app)
        except ConfigError as error:
            logger.critical("The worker does not start. %s", error)
            raise SystemExit(EX_CONFIG) from None
        fit_redis(app, config.hooks)
        app.tasks[WebhookDelivery.name].publisher.close()  # if it was used, its options are older
        with app.connection_for_write() as connection:
            agree_on_queue(app, connection)
        limits = limits_of(app)
        for problem in problems(config.hooks, limits):
            logger.warning("%s", problem)
        # Elsewhere what is put off would pile up in this worker's memory, or there is nothing to
        # share: a child of the prefork pool makes one attempt at a time.
        if limits.waits_in_broker and _makes_attempts_together(worker.pool_cls):
            app.tasks[WebhookDelivery.name].shares = Shares(worker.concurrency)
        for hook in config.hooks:
            logger.info("%s", hook_line(hook))
        queue = webhooks_queue(app)
        if config.hooks and queue not in app.amqp.queues.consume_from:
            logger.warning(
                "this worker does not consume the queue %s: it delivers no webhooks. Add it to -Q "
                "here or run another worker for it.",
                queue,
            )

        self._stopping = threading.Event()
        self._flusher: threading.Thread | None = None

    def start(self, worker: Any) -> None:
        """Begin to send what events were spooled on this machine, now and as long as we run."""
        if worker.app.tasks[WebhookDelivery.name].spool is not None:
            self._flusher = threading.Thread(
                target=self._flush, args=(worker.app,), name="webhooks-spool", daemon=True
            )
            self._flusher.start()

    def _flush(self, app: Any) -> None:
        while True:
            count = 0
            try:
                with _sending:
                    count = flush_spool(app, FLUSH_BATCH)
            except Exception as error:  # noqa: BLE001 - a later round may succeed
                logger.warning("spooled events still wait: %s: %s", type(error).__name__, error)
            else:
                if count:
                    logger.info("%d spooled messages sent", count)
            # A moment for those who want to fork, or until there may be something again.
            if self._stopping.wait(0.01 if count else FLUSH_INTERVAL):
                return

    def close(self, worker: Any) -> None:
        """Let the pool finish what one of its children has only just got.

        Celery 5.7 "flushes" the pool before it stops: it forgets what it gave to a child and has
        not heard of since. The child finishes it all the same and waits half a minute for its
        result to be noticed; then the message goes back to the broker, and the delivery is made
        twice. What was not given to a child goes back anyway.
        """
        worker.pool.flush = _forget_nothing

    def stop(self, worker: Any) -> None:
        self._stopping.set()
        if self._flusher is not None:
            self._flusher.join(timeout=5)

    def terminate(self, worker: Any) -> None:
        self.stop(worker)
        _close_connections(worker)  # Celery does not send the signal then


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _close_connections(sender: Any, **_: Any) -> None:
    """Close connections, once the pool has ended."""
    if WebhookDelivery.name in sender.app.tasks:
        sender.app.tasks[WebhookDelivery.name].close()


def _forget_nothing() -> None:
    """Stands in for the pool's ``flush``."""


def _makes_attempts_together(pool: Any) -> bool:
    """Whether attempts run in this process, many at once."""
    return bool(pool.is_green) or pool.__module__ == "celery.concurrency.thread"


@inspect_command()  # type: ignore[untyped-decorator]
def webhooks(state: Any, **kwargs: Any) -> dict[str, Any]:
    """Show the hooks this worker delivers to, without secrets."""
    return describe_config(config_of(state.app))
