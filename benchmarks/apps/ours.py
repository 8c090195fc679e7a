"""This package's own app, as ``celery -A webhooks_celery`` has it."""

from __future__ import annotations

from webhooks_celery import emit
from webhooks_celery.celery import app as app

from . import payload


def queue(count: int, events: list[str]) -> list[str]:
    """Emit so many events, of these names in turn; return the delivery ids."""
    app.set_current()
    return [
        delivery
        for number in range(count)
        for delivery in emit(events[number % len(events)], payload(number))
    ]
