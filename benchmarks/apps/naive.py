"""What one writes first: ``requests.post`` in a task, with Celery's defaults.

The header with the id is there for the receiver to count by.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

import requests
from celery import Celery

from . import payload

app = Celery("naive", broker=os.environ["CELERY_BROKER_URL"])
_URL = os.environ["BENCHMARK_URL"]


@app.task  # type: ignore[untyped-decorator]
def deliver(content: dict[str, Any]) -> None:
    """Send."""
    response = requests.post(
        _URL, json=content, headers={"X-Immich-Delivery-Id": content["id"]}, timeout=10
    )
    response.raise_for_status()


def queue(count: int, events: list[str]) -> list[str]:
    """Queue so many deliveries, of events of these names in turn; return their ids."""
    ids = [str(uuid4()) for _ in range(count)]
    for number, delivery in enumerate(ids):
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        content = {
            "id": delivery,
            "eventName": events[number % len(events)],
            "timestamp": now,
            "payload": payload(number),
        }
        deliver.delay(content)
    return ids
