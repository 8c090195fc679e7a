"""``celery -A webhooks_celery worker``: how it starts, what it shows, how it ends."""

import json
import os
import signal
import threading
from uuid import uuid4

import pytest
from brokers import ask, outcome, take_all
from recorder import Request

from webhooks_celery import emit


@pytest.fixture
def hooks(receiver) -> list[dict]:
    return [
        {
            "id": "person-hooks",
            "events": ["PersonCreate", "PersonUpdate"],
            "url": receiver.url("/webhooks/immich?token=s3cr3t-marker"),
            "headers": {"Authorization": "Bearer s3cr3t-marker"},
            "timeoutMs": 15000,
            "retries": 5,
            "backoffMs": 3000,
        },
        {"events": ["*"], "url": "https://receiver.test/x", "method": "put", "retries": 1},
    ]


def test_a_good_file_is_announced_one_line_a_hook(hooks, receiver, webhooks_file, own_worker):
    worker = own_worker(webhooks_file(*hooks))
    address = receiver.url("")
    line = worker.wait_for_line("hook person-hooks")
    assert "INFO" in line
    assert f"POST {address} for PersonCreate, PersonUpdate;" in line
    assert "attempts: 5 (at once, +3 s, +9 s, +21 s, +45 s), deadline 15 s" in line
    assert "PUT https://receiver.test for *" in worker.wait_for_line("hook webhook-2")
    assert sum("] hook " in line for line in worker.lines) == 2
    assert "s3cr3t" not in worker.output
    assert "/webhooks/immich" not in worker.output
    assert worker.stop() == 0
    assert "Traceback" not in worker.output


def test_it_delivers(hooks, receiver, webhooks_file, own_worker, make_app):
    file = webhooks_file(*hooks)
    worker = own_worker(file)
    app = make_app(webhooks_config=file)
    [delivery, _] = emit("PersonCreate", {"id": 1}, app=app)
    assert outcome(app, delivery)["status"] == 200
    [request] = receiver.requests
    assert json.loads(request.body)["payload"] == {"id": 1}
    assert worker.stop() == 0


def test_a_variable_of_the_environment_is_put_in(receiver, webhooks_file, own_worker, make_app):
    hook = {"events": ["*"], "url": receiver.url("/in"), "headers": {"X-Token": "t-${TOKEN}"}}
    file = webhooks_file(hook)
    own_worker(file, TOKEN="from the environment")
    emit.delay("E", app=make_app())
    [request] = receiver.wait_for(1)
    assert request.headers["X-Token"] == "t-from the environment"


@pytest.mark.parametrize("named", [True, False], ids=["absent file", "unset variable"])
def test_without_a_file_it_says_that_webhooks_are_off_and_runs(named, own_worker, tmp_path):
    path = str(tmp_path / "nothing-here.json") if named else None
    worker = own_worker(path)
    why = f"{path} does not exist" if named else "IMMICH_WEBHOOKS_CONFIG is not set"
    assert [line for line in worker.lines if "webhooks are off" in line] == [
        worker.wait_for_line(f"webhooks are off: {why}")
    ]
    assert worker.stop() == 0


FAULTY = """
{
  "webhooks": [
    {"events": [], "url": "http://receiver.test/?token=${NOWHERE_SET}", "timeoutMs": 0},
    {"id": "twice", "event": ["A"], "url": "ftp://receiver.test", "retries": "3"},
    {"id": "twice", "events": ["A"], "url": "http://receiver.test", "headers": {"A\\nB": 1}}
  ]
}
"""


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        pytest.param(
            FAULTY,
            [
                "webhooks[0].events: Must name at least one event.",
                "webhooks[0].timeoutMs: Must be greater than or equal to 1.",
                "webhooks[0].url: The environment variable NOWHERE_SET is not set.",
                "webhooks[1].event: Unknown field; did you mean events?",
                "webhooks[1].events: Missing data for required field.",
                "webhooks[1].retries: Not a valid integer.",
                "webhooks[1].url: Must begin with http:// or https://.",
                "webhooks[2].headers.'A\\nB': Must be a string, not a number.",
                "webhooks[2].id: 'twice' is the id of webhooks[1] already",
            ],
            id="many faults",
        ),
        pytest.param(
            '{"webhooks": [', ["Not JSON: Expecting value (line 1, column 15)."], id="cut"
        ),
        pytest.param("", ["The file is empty"], id="empty"),
    ],
)
def test_a_broken_file_is_refused_before_anything_is_consumed(
    text, faults, own_worker, make_app, queue, tmp_path
):
    path = tmp_path / "webhooks.json"
    path.write_text(text)
    app = make_app()
    emit.delay("E", app=app)

    worker = own_worker(str(path), ready=False)

    assert worker.wait() == 78
    assert f"{path} cannot be used" in worker.output
    for fault in faults:
        assert sum(fault in line for line in worker.lines) == 1, (fault, worker.output)
    assert "Traceback" not in worker.output
    assert " ready." not in worker.output
    assert len(take_all(app, queue)) == 1


def test_a_relative_path_is_refused(own_worker):
    worker = own_worker("webhooks.json", ready=False)
    assert worker.wait() == 78
    assert "webhooks.json cannot be used (1 fault)" in worker.output
    assert "The path must be absolute: begin it with /." in worker.output
    assert "Traceback" not in worker.output


def test_a_folder_is_refused(own_worker, tmp_path):
    worker = own_worker(str(tmp_path), ready=False)
    assert worker.wait() == 78
    assert "Is a directory; name the file in it." in worker.output
    assert "Traceback" not in worker.output


def test_celery_inspect_webhooks(hooks, webhooks_file, own_worker, start, settings, make_app):
    file = webhooks_file(*hooks)
    node = f"{uuid4()}@test"
    own_worker(file, "-n", node)
    ask(make_app(), node, "ping")
    inspect = start(
        *("-m", "celery", "-A", "webhooks_celery", "inspect", "-t", "30", "-d", node, "-j"),
        "webhooks",
        CELERY_BROKER_URL=settings["broker_url"],
    )
    assert inspect.wait() == 0
    shown = json.loads(inspect.lines[-1])[node]
    assert shown["file"] == file
    assert [(hook["id"], hook["method"], hook["attempts"]) for hook in shown["hooks"]] == [
        ("person-hooks", "POST", 5),
        ("webhook-2", "PUT", 1),
    ]
    assert "s3cr3t" not in inspect.output


def test_its_settings_are_safe_without_a_celeryconfig(start):
    report = start(
        *("-m", "celery", "-A", "webhooks_celery", "report"), CELERY_BROKER_URL="redis://h.test:1/0"
    )
    assert report.wait() == 0
    assert "task_default_queue: 'backgroundTask'" in report.output
    assert "task_acks_late: True" in report.output
    assert "task_reject_on_worker_lost: True" in report.output


def test_a_child_that_has_only_just_got_a_delivery_is_waited_for(
    receiver, queue, webhooks_file, own_worker, make_app
):
    """It begins when the worker is stopping already; nobody has heard of it until then."""
    file = webhooks_file({"events": ["*"], "url": receiver.url("/in")})
    node = f"{uuid4()}@test"
    worker = own_worker(file, "-P", "prefork", "-c", "1", "-n", node, "-l", "DEBUG")
    app = make_app(webhooks_config=file)
    [first] = emit("E", app=app)
    assert outcome(app, first)["status"] == 200  # it is up
    [child] = ask(app, node, "stats")["pool"]["processes"]

    os.kill(child, signal.SIGSTOP)
    [delivery] = emit("E", app=app)
    while ask(app, node, "stats")["pool"]["writes"]["total"] < 2:
        """It has not been given to the child."""
    worker.ask_to_stop()
    worker.wait_for_line("Stopping Pool...")
    os.kill(child, signal.SIGCONT)

    assert worker.wait() == 0
    assert outcome(app, delivery)["status"] == 200
    assert take_all(app, queue) == []
    assert len(receiver.requests) == 2


def test_a_receiver_that_hangs_does_not_stop_the_others(
    receiver, webhooks_file, own_worker, make_app
):
    hold = threading.Event()

    def answer(_: Request) -> bytes:
        hold.wait(60)
        return b"HTTP/1.1 204 No Content\r\n\r\n"

    file = webhooks_file(
        {"id": "hangs", "events": ["*"], "url": receiver.answer("/hangs", answer)},
        {"id": "works", "events": ["*"], "url": receiver.url("/works")},
    )
    app = make_app(webhooks_config=file)
    worker = own_worker(file, "-P", "threads", "-c", "4")
    for number in range(8):
        emit("E", number, app=app)

    receiver.wait_for(8, "/works")
    assert len(receiver.to("/hangs")) < 4  # of the places
    hold.set()
    receiver.wait_for(8, "/hangs", timeout=60)
    assert "lost" not in worker.output


def test_many_greenlets_that_acknowledge_at_once_lose_nothing(
    receiver, queue, webhooks_file, own_worker, make_app
):
    """A connection for each would be more than kombu has in its pool."""
    file = webhooks_file({"events": ["*"], "url": receiver.url("/in")})
    app = make_app(webhooks_config=file)
    for number in range(200):
        emit("E", number, app=app)
    worker = own_worker(file, "-P", "gevent", "-c", "50")
    receiver.wait_for(200, timeout=60)
    assert worker.stop() == 0
    assert "Couldn't ack" not in worker.output
    assert take_all(app, queue) == []
    assert len(receiver.requests) == 200
