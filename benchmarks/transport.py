"""CPU time of one attempt in one process: ours, a prepared `HTTPAdapter.send`, `requests.post`.

Nothing but the sending, one after the other over a kept connection (but for `requests.post`, which
keeps none), to an nginx that answers at once. `--deliveries` is the number of attempts in a round.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from .apps import EVENT, payload
from .machine import environment, in_child
from .receivers import nginx
from .report import Metric, Result, Row
from .rounds import Options, cpu_microseconds, interleaved, wanted

ROUNDS, DELIVERIES = 7, 2_000
METRICS = [
    Metric(key="cpu", title="CPU per attempt", unit="µs"),
    Metric(key="rate", title="attempts", unit="1/s"),
]
OURS, PREPARED, SESSION, POST = (
    "ours",
    "prepared HTTPAdapter.send",
    "kept Session.post",
    "requests.post",
)


def run(options: Options) -> Result:
    """Run the table."""
    with nginx(tls=options.tls) as receiver:
        env = {"REQUESTS_CA_BUNDLE": str(receiver.ca)} if receiver.ca else {}
        found: dict[str, dict[str, list[float]]] = in_child(
            "benchmarks.transport",
            *(receiver.url, str(options.rounds), str(options.deliveries)),
            env=environment(None, **env),
        )
        return Result(
            table="transport-tls" if options.tls else "transport",
            title=f"One attempt to {receiver.name}",
            metrics=METRICS,
            rows=[
                Row(name=name, samples=samples)
                for name, samples in found.items()
                if wanted(name, options.only)
            ],
            baseline=PREPARED,
            options=options.shown(),
        )


def _in_this_process(url: str, rounds: int, count: int) -> dict[str, dict[str, list[float]]]:
    import requests

    from webhooks_celery.model import Event, Hook
    from webhooks_celery.request import Headers, body
    from webhooks_celery.transport import Transport

    hook = Hook(id="receiver", position=1, events=(EVENT,), url=url)
    text = json.dumps(payload(1), separators=(",", ":"))
    event = Event(name=EVENT, timestamp="2025-11-20T12:34:56.789Z", payload=text)
    delivery = "8538265e-4b35-4a36-af7f-9ea850ce17d4"
    content, headers = body(delivery, event), Headers(hook).for_delivery(delivery, event)
    prepared = requests.Request("POST", url, headers=headers, data=content).prepare()
    adapter, session, transport = requests.adapters.HTTPAdapter(), requests.Session(), Transport()
    verify = os.environ.get("REQUESTS_CA_BUNDLE", True)

    def ours() -> None:
        attempt = transport.attempt(hook, delivery, event)
        assert attempt.delivered, attempt.problem

    def send() -> None:
        response = adapter.send(prepared, timeout=10, verify=verify)
        assert response.status_code == 204
        assert not response.content

    def post(client: Any) -> Callable[[], None]:
        def call() -> None:
            response = client.post(url, data=content, headers=headers, timeout=10)
            assert response.status_code == 204

        return call

    calls = {OURS: ours, PREPARED: send, SESSION: post(session), POST: post(requests)}
    for call in calls.values():
        call()

    def measured(call: Callable[[], None]) -> Callable[[], dict[str, float]]:
        return lambda: cpu_microseconds(call, count)

    return interleaved({name: measured(call) for name, call in calls.items()}, rounds)


if __name__ == "__main__":
    print(json.dumps(_in_this_process(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
