"""What our own delivery costs more than: a task that does nothing but send prepared bytes.

Same settings, broker, transport, late acknowledgement, request headers and bytes as ours. No
deadline, retry, look-up of the hook, or building of the body.
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

from celery import Celery
from requests import Request
from requests.adapters import HTTPAdapter

from webhooks_celery.broker import fit_redis, use_redis_transport
from webhooks_celery.config import read
from webhooks_celery.model import Event, timestamp
from webhooks_celery.request import VERSION, body

from . import payload

if not os.environ.get("BENCHMARK_STOCK_TRANSPORT"):
    use_redis_transport()
app = Celery("bare", config_source="celeryconfig")
if app.conf.broker_url.startswith("redis"):
    fit_redis(app, read(os.environ["IMMICH_WEBHOOKS_CONFIG"]).hooks)

_CA = os.environ.get("REQUESTS_CA_BUNDLE", True)
_FIXED = {"Content-Type": "application/json", "User-Agent": f"webhooks-celery/{VERSION}"}
_PREPARED = Request("POST", os.environ["BENCHMARK_URL"], headers=_FIXED).prepare()
_adapter = HTTPAdapter(pool_maxsize=1000)


@app.task(bind=True, name="BareDelivery")  # type: ignore[untyped-decorator]
def deliver(self: Any, event: str, timestamp: str, content: str) -> int:
    """Send; the task's id is the delivery id."""
    request = _PREPARED.copy()
    request.body = content.encode()
    request.headers.update(
        {
            "Content-Length": str(len(request.body)),
            "X-Immich-Event": event,
            "X-Immich-Delivery-Id": self.request.id,
            "X-Immich-Timestamp": timestamp,
        }
    )
    response = _adapter.send(request, timeout=10, verify=_CA)
    response.content  # noqa: B018 - read, so that the connection is kept
    response.raise_for_status()
    return response.status_code


def queue(count: int, events: list[str]) -> list[str]:
    """Queue so many deliveries, of events of these names in turn; return their ids."""
    ids = [str(uuid4()) for _ in range(count)]
    with app.producer_pool.acquire() as producer:
        for number, delivery in enumerate(ids):
            text = json.dumps(payload(number), separators=(",", ":"))
            now = timestamp(datetime.now(timezone.utc))
            event = Event(name=events[number % len(events)], timestamp=now, payload=text)
            arguments = {
                "event": event.name,
                "timestamp": event.timestamp,
                "content": body(delivery, event).decode(),
            }
            deliver.apply_async(
                kwargs=arguments, task_id=delivery, producer=producer, kwargsrepr=event.name
            )
    return ids
