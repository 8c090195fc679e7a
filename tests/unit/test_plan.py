"""What of a hook's timetable does not go together with the broker's limits."""

from __future__ import annotations

import pytest

from webhooks_celery.model import Hook
from webhooks_celery.plan import Limits, longest_wait, problems, visibility_timeout

HOUR_MS = 3_600_000


def hook(name: str = "h", **schedule) -> Hook:
    return Hook(id=name, position=1, events=("*",), url="http://h/s3cr3t", **schedule)


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [
        ({}, 4),
        ({"attempts": 1}, 0),
        ({"attempts": 2}, 2),
        ({"attempts": 10}, 512),
        ({"backoff_ms": 1}, 0.002),
        ({"attempts": 10, "backoff_max_ms": 5_000}, 5),
        ({"jitter": 1.0}, 4),  # the longest one, so nothing is taken off
    ],
)
def test_longest_wait(schedule, seconds):
    assert longest_wait(hook(**schedule)) == seconds


@pytest.mark.parametrize(
    ("hooks", "prefetch", "seconds"),
    [
        ([], 4, 60),
        ([hook()], 0, 4 + 10 + 60),
        ([hook()], 4, 4 + 5 * 10 + 60),
        ([hook(attempts=10), hook(timeout_ms=30_000)], 1, 512 + 2 * 30 + 60),
        ([hook(), hook(attempts=20, timeout_ms=HOUR_MS, enabled=False)], 0, 4 + 10 + 60),
    ],
)
def test_visibility_timeout_has_room_for_wait_and_attempts(hooks, prefetch, seconds):
    assert visibility_timeout(hooks, prefetch) == seconds


def test_what_is_proposed_is_enough():
    hooks = [hook(attempts=15, timeout_ms=60_000)]
    enough = visibility_timeout(hooks, prefetch=4)
    assert list(problems(hooks, Limits(kind="redis", visibility_timeout=enough))) == []


@pytest.mark.parametrize(
    ("schedule", "limits"),
    [
        ({}, Limits(kind="redis")),
        ({"backoff_ms": HOUR_MS - 10_000, "attempts": 2}, Limits(kind="redis")),
        ({"backoff_ms": HOUR_MS}, Limits(kind="redis", visibility_timeout=4 * 3600)),
        ({"backoff_ms": HOUR_MS, "attempts": 1}, Limits(kind="redis")),
        ({"backoff_ms": HOUR_MS, "enabled": False}, Limits(kind="redis", time_limit=1)),
        ({}, Limits(kind="amqp")),
        ({"backoff_ms": 24 * HOUR_MS}, Limits(kind="amqp", waits_in_broker=True)),
        ({"backoff_ms": 24 * HOUR_MS}, Limits(kind="memory")),
        ({"timeout_ms": 10_000}, Limits(kind="amqp", time_limit=10.001)),
    ],
)
def test_what_goes_together(schedule, limits):
    assert list(problems([hook(**schedule)], limits)) == []


@pytest.mark.parametrize(
    ("schedule", "limits", "problem"),
    [
        pytest.param(
            {"attempts": 2, "backoff_ms": HOUR_MS - 9_999},
            Limits(kind="redis"),
            "hook h: its longest wait and its deadline take 1 h, but Redis gives the delivery to "
            "another worker after 1 h: it would be attempted too often. Set "
            'broker_transport_options["visibility_timeout"] to at least 3701, or lower retries, '
            "backoffMs or backoffMaxMs.",
            id="Redis",
        ),
        pytest.param(
            {"attempts": 2, "backoff_ms": HOUR_MS},
            Limits(kind="amqp"),
            "hook h: a worker would hold its delivery for 1 h, but RabbitMQ closes the connection "
            "after 30 min (its default consumer_timeout). Use a quorum queue, or lower retries, "
            "backoffMs, backoffMaxMs or timeoutMs.",
            id="classic queue",
        ),
        pytest.param(
            {"timeout_ms": HOUR_MS},
            Limits(kind="amqp", waits_in_broker=True),
            "hook h: a worker would hold its delivery for 1 h, but RabbitMQ closes the connection "
            "after 30 min (its default consumer_timeout). Lower timeoutMs.",
            id="quorum queue",
        ),
        pytest.param(
            {"timeout_ms": 10_000},
            Limits(kind="amqp", time_limit=10),
            "hook h: its deadline is 10 s, but Celery ends a task after 10 s. Raise "
            "task_time_limit and task_soft_time_limit above it, or lower timeoutMs.",
            id="time limit",
        ),
    ],
)
def test_what_does_not_is_told_with_its_remedy(schedule, limits, problem):
    assert list(problems([hook(**schedule)], limits)) == [problem]


def test_every_problem_of_every_hook_is_told():
    hooks = [hook("fine"), hook("slow", backoff_ms=HOUR_MS, timeout_ms=20_000)]
    found = list(
        problems([*hooks, hook("late", timeout_ms=15_000)], Limits(kind="redis", time_limit=15))
    )
    assert [text.split(":")[0] for text in found] == ["hook slow", "hook slow", "hook late"]
    assert "s3cr3t" not in str(found)
