"""``celery webhooks dead …``, ``spool …`` and ``check --broker`` as an operator sees them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from brokers import ON_REDIS, delete_queues, moved, settings_for, take_all
from processes import environment

from webhooks_celery import emit
from webhooks_celery.model import DeadLetter

OLD, NEW = "2025-11-20T12:00:00.000Z", "2099-01-01T00:00:00.000Z"


def letter(number: int, **fields: Any) -> DeadLetter:
    return replace(
        DeadLetter(
            delivery=f"d{number:05}",
            hook="even" if number % 2 == 0 else "odd",
            event="PersonCreate",
            timestamp="2025-11-20T11:59:00.000Z",
            payload='{"name":"Zoë"}',
            reason="HTTP 503 Service Unavailable.",
            attempts=3,
            status=503,
            parked=OLD,
        ),
        **fields,
    )


@pytest.fixture
def settings(settings):
    """Queues of the kind that the commands' app has."""
    if ON_REDIS:
        return settings
    return settings | {
        "task_create_missing_queue_type": "quorum",
        "task_create_missing_queue_exchange_type": "topic",
    }


@pytest.fixture
def run(settings, tmp_path: Path):
    """Runs ``celery -A webhooks_celery webhooks …`` with the queues of this test."""
    names = ("webhooks_queue", "task_default_queue")
    (tmp_path / "celeryconfig.py").write_text(
        "from webhooks_celery.defaults import *\n"
        + "".join(f"{name} = {settings[name]!r}\n" for name in names)
    )

    def run(
        *arguments: object, stdin: str | bytes = "", app: str = "webhooks_celery", **env: str
    ) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "celery", "-A", app, "webhooks", *map(str, arguments)],
            cwd=tmp_path,
            env=environment(**{"CELERY_BROKER_URL": settings["broker_url"], **env}),
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def dead(make_app, run):
    """Runs ``dead …``; checks exit status and standard error, returns standard output."""

    def run_dead(*arguments: object, status: int = 0, says: str = "", **options: Any) -> str:
        done = run("dead", *arguments, **options)
        error = done.stderr.decode()
        assert done.returncode == status, error
        assert says in error if says else error == ""
        assert "Traceback" not in error
        return done.stdout.decode()

    return run_dead


@pytest.fixture
def letters(make_app):
    """The dead letters of this test; four to begin with."""
    found = make_app().tasks["WebhookDelivery"].dead_letters
    found.park(letter(0), letter(1, event="AssetDelete"), letter(2, parked=NEW), letter(3))
    return found


def ids(text: str) -> list[str]:
    return [line.split("  ")[0] for line in text.splitlines()]


# ---- list, show


def test_list_shows_each_letter_on_a_line_the_oldest_first(dead, letters):
    listed = dead("list", says="4 dead letters listed.")
    assert ids(listed) == ["d00000", "d00001", "d00002", "d00003"]
    assert re.split("  +", listed.splitlines()[1]) == [
        "d00001",
        OLD,
        "odd",
        "AssetDelete",
        "attempts: 3",
        "HTTP 503 Service Unavailable.",
    ]
    assert len(list(letters.browse())) == 4


def test_nothing_to_list_is_told(dead):
    assert dead("list", says="0 dead letters listed.") == ""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--hook", "odd"], "13"),
        (["--event", "PersonCreate"], "023"),
        (["--since", "1d"], "2"),
        (["--since", "2025-11-20T12:00:00Z", "--limit", "2"], "01"),
        (["--hook", "odd", "--event", "PersonCreate"], "3"),
    ],
)
def test_list_can_be_narrowed_down(options, expected, dead, letters):
    count = f"{len(expected)} dead letter{'s' if len(expected) > 1 else ''} listed."
    assert ids(dead("list", *options, says=count)) == [f"d0000{number}" for number in expected]


@pytest.mark.parametrize("since", ["yesterday", "999999999999d", "0001-01-01T00:00:00+12:00"])
def test_a_since_that_means_nothing_is_told(since, dead):
    dead("list", "--since", since, status=2, says="write 30m, 12h, 7d or 2025-11-20T12:00:00Z")


def test_list_gives_everything_as_json(dead, letters):
    lines = dead("list", "--json").splitlines()
    assert [json.loads(line) for line in lines] == [asdict(each) for each in letters.browse()]


def test_show_shows_all_of_a_letter(dead, letters):
    assert dead("show", "d00001") == (
        "delivery:  d00001\n"
        "hook:      odd\n"
        "event:     AssetDelete\n"
        "timestamp: 2025-11-20T11:59:00.000Z\n"
        "reason:    HTTP 503 Service Unavailable.\n"
        "attempts:  3\n"
        "status:    503\n"
        f"parked:    {OLD}\n"
        "seen:      -\n"
        "payload:\n"
        '{\n  "name": "Zoë"\n}\n'
    )


def test_show_shows_a_payload_that_is_not_json_as_it_is(dead, letters):
    letters.park(letter(4, payload="not JSON"))
    assert dead("show", "d00004").endswith("payload:\nnot JSON\n")


def test_show_of_an_unknown_id_is_told(dead, letters):
    dead("show", "d9", status=1, says="Error: There is no dead letter d9.")


# ---- replay, discard


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["d00003", "d00001"], "13"),
        (["--hook", "even"], "02"),
        (["--event", "AssetDelete"], "1"),
        (["--since", "1d"], "2"),
        (["--all"], "0123"),
    ],
)
def test_replay_queues_what_was_chosen_in_order(options, expected, dead, letters, queue, make_app):
    chosen = [f"d0000{number}" for number in expected]
    count = f"{len(chosen)} dead letter{'s' if len(chosen) > 1 else ''} replayed."
    assert ids(dead("replay", *options, says=count)) == chosen
    messages = take_all(make_app(), queue)
    assert [message.headers["id"] for message in messages] == chosen
    assert {message.headers["retries"] for message in messages} == {0}
    left = [each.delivery for each in letters.browse()]
    assert left == [f"d0000{number}" for number in "0123" if number not in expected]


@pytest.mark.parametrize("command", ["replay", "discard"])
def test_nothing_is_done_without_a_choice(command, dead, letters):
    dead(command, status=2, says="Say which: ids, --hook, --event, --since or --all.")
    assert len(list(letters.browse())) == 4


def test_an_id_that_is_not_there_is_told_and_the_others_are_replayed(dead, letters):
    shown = dead(*("replay", "d00001", "gone"), status=1, says="There is no such dead letter: gone")
    assert shown == "d00001  odd  AssetDelete\n"


def test_discard_asks_first(dead, letters):
    dead("discard", "--all", stdin="n\n", status=1, says="Discard them for good? [y/N]: ")
    dead("discard", "--all", status=1, says="Aborted!")
    assert len(list(letters.browse())) == 4
    assert len(ids(dead("discard", "--all", stdin="y\n", says="4 dead letters discarded."))) == 4
    assert list(letters.browse()) == []


def test_discard_does_not_ask_if_told_so(dead, letters, queue, make_app):
    assert dead("discard", "--yes", "--hook", "odd", says="2 dead letters discarded.")
    assert [each.hook for each in letters.browse()] == ["even", "even"]
    assert take_all(make_app(), queue) == []


# ---- export, import


def test_what_was_exported_can_be_imported(dead, letters, tmp_path):
    before = list(letters.browse())
    file = tmp_path / "letters.jsonl"
    # Whatever the encoding of the place that it goes to.
    file.write_text(dead("export", PYTHONIOENCODING="ascii"), "ascii")
    assert list(letters.browse()) == before

    dead("discard", "--all", "--yes", says="4 dead letters discarded.")
    dead("import", file, says="4 dead letters imported.")
    assert list(letters.browse()) == before


def test_export_can_be_narrowed_down_and_import_reads_standard_input(dead, letters):
    exported = dead("export", "--hook", "odd", "--event", "AssetDelete", "--since", "2025-01-01")
    dead("import", stdin=exported + "\n", says="1 dead letter imported.")
    assert [each.delivery for each in letters.browse()][3:] == ["d00003", "d00001"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "Line 2 is not an exported dead letter: Expecting property name"),
        ("[1]", "Line 2 is not an exported dead letter: "),
        ('{"delivery": "d"}', "Line 2 is not an exported dead letter: "),
        (json.dumps(asdict(letter(1)) | {"attempts": "3"}), "attempts has the wrong type"),
        (b"\xff", "The file is not UTF-8"),
    ],
)
def test_a_faulty_import_imports_nothing(line, problem, dead, letters):
    line = line if isinstance(line, bytes) else line.encode()
    good = json.dumps(asdict(letter(4))).encode()
    dead("import", stdin=good + b"\n" + line + b"\n", status=1, says=problem)
    assert len(list(letters.browse())) == 4


# ---- when something is in the way


@pytest.mark.parametrize(
    "arguments", [["list"], ["replay", "--all"], ["import"], ["export"]], ids=lambda it: it[0]
)
def test_a_broker_that_is_away_is_told(arguments, dead, broker_url):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = moved(broker_url, taken.getsockname()[1])
        stdin = json.dumps(asdict(letter(1)))
        says = "Error: the broker cannot be reached: "
        dead(*arguments, status=1, says=says, stdin=stdin, CELERY_BROKER_URL=url)


def test_somebody_elses_message_is_told_and_left_alone(dead, letters, queue, make_app):
    with make_app().producer_or_acquire() as producer:
        producer.publish({"colour": "red"}, serializer="json", routing_key=f"{queue}.dead")
    letters.park(letter(4))
    listed = dead("list", says="holds a message that is no dead letter of this version")
    assert len(ids(listed)) == 5
    dead("replay", "--all", says="5 dead letters replayed.")
    dead("list", says="holds a message that is no dead letter of this version")


@pytest.mark.redis
def test_two_operators_take_turns_on_redis(dead, letters):
    """RabbitMQ gives each of them letters of their own."""
    taking = letters.take(lambda _: True, print)
    next(taking)
    dead("replay", "--all", status=1, says="Error: Somebody else is replaying or discarding")
    assert len(ids(dead("list", says="3 dead letters listed."))) == 3
    taking.close()
    dead("replay", "--all", says="3 dead letters replayed.")


def test_a_reader_that_has_seen_enough_is_no_fault(settings, run, letters, tmp_path):
    letters.park(*(letter(number) for number in range(4, 3000)))
    command = f"{sys.executable} -m celery -A webhooks_celery webhooks dead list | head -n 1"
    done = subprocess.run(
        command,
        shell=True,
        cwd=tmp_path,
        env=environment(CELERY_BROKER_URL=settings["broker_url"]),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ids(done.stdout) == ["d00000"]
    assert done.stderr == ""


# ---- many


@pytest.fixture
def park(make_app):
    """Parks many letters and returns their ids."""

    def park(count: int) -> list[str]:
        everything = [letter(number) for number in range(count)]
        make_app().tasks["WebhookDelivery"].dead_letters.park(*everything)
        return [each.delivery for each in everything]

    return park


def test_many_letters_go_through_every_command_in_order(dead, park, queue, make_app, tmp_path):
    expected = park(2_000)
    assert ids(dead("list", says="2000 dead letters listed.")) == expected
    file = tmp_path / "letters.jsonl"
    file.write_text(dead("export"))
    dead("discard", "--yes", "--all", says="2000 dead letters discarded.")
    dead("import", file, says="2000 dead letters imported.")
    assert ids(dead("replay", "--all", says="2000 dead letters replayed.")) == expected
    assert [message.headers["id"] for message in take_all(make_app(), queue)] == expected
    assert dead("list", says="0 dead letters listed.") == ""


def test_an_interrupted_replay_is_finished_by_the_next_one(
    run, start, park, settings, queue, make_app
):
    """Interrupted as with Ctrl-C, then killed; nothing disturbs the order."""
    expected = park(2_000)
    command = ("-m", "celery", "-A", "webhooks_celery", "webhooks", "dead", "replay", "--all")
    for number, stop in ((100, signal.SIGINT), (300, signal.SIGKILL)):
        replay = start(*command, CELERY_BROKER_URL=settings["broker_url"])
        replay.wait_for_line("  PersonCreate", count=number)
        os.kill(replay.pid, stop)
        assert replay.wait() != 0
        if stop is signal.SIGINT:
            assert re.search(r"\d+ dead letters replayed\.\n\s*Aborted!", replay.output)
            assert "Traceback" not in replay.output
    done = run("dead", "replay", "--all")
    if ON_REDIS:  # it cannot know that the one before was killed
        assert b"Somebody else is replaying" in done.stderr
        delete_queues(settings["broker_url"], [f"{queue}.dead.lock"])  # a minute later
        done = run("dead", "replay", "--all")
    assert done.returncode == 0, done.stderr

    replayed = [message.headers["id"] for message in take_all(make_app(), queue)]
    in_order = list(dict.fromkeys(replayed))
    assert in_order == expected
    assert len(replayed) <= len(in_order) + 2  # at most one twice for each interruption


# ---- spool


@pytest.fixture
def spooled(settings, webhooks_file, make_app, tmp_path) -> list[str]:
    """Delivery ids of an event that was emitted while the broker was away, and an event id."""
    file = webhooks_file(
        *({"id": name, "events": ["*"], "url": f"http://{name}.test/"} for name in "ab")
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        away = settings_for(moved(settings["broker_url"], taken.getsockname()[1]))
        app = make_app(webhooks_config=file, webhooks_spool=str(tmp_path / "spool"), **away)
        return [*emit("PersonCreate", app=app), emit.delay("TagCreate", app=app).id]


def test_spool_list_shows_what_waits_and_flush_sends_it(
    run, spooled, broker_url, queue, make_app, tmp_path
):
    spool = {"WEBHOOKS_SPOOL": str(tmp_path / "spool")}
    listed = run("spool", "list", **spool)
    assert (listed.returncode, listed.stderr) == (0, b"3 messages waiting.\n")
    rows = [re.split("  +", line) for line in listed.stdout.decode().splitlines()]
    assert [row[0] for row in rows] == spooled
    assert [row[2:] for row in rows] == [
        ["PersonCreate", "a"],
        ["PersonCreate", "b"],
        ["TagCreate", "every hook"],
    ]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = moved(broker_url, taken.getsockname()[1])
        away = run("spool", "flush", CELERY_BROKER_URL=url, **spool)
    assert away.returncode == 1
    assert away.stderr.decode().startswith("Error: the broker cannot be reached: ")

    flushed = run("spool", "flush", **spool)
    assert (flushed.returncode, flushed.stdout) == (0, b"3 messages sent.\n"), flushed.stderr
    assert [message.headers["id"] for message in take_all(make_app(), queue)] == spooled
    assert run("spool", "list", **spool).stderr == b"0 messages waiting.\n"
    assert run("spool", "flush", **spool).stdout == b"0 messages sent.\n"


@pytest.mark.parametrize("command", ["list", "flush"])
def test_without_a_spool_its_setting_is_named(command, run):
    done = run("spool", command)
    assert done.returncode == 1
    assert done.stderr == (
        b"Error: There is no spool: name a folder with the app's setting webhooks_spool.\n"
    )


@pytest.mark.parametrize("command", ["list", "flush"])
def test_a_spool_that_cannot_be_read_is_told(command, run, tmp_path):
    (tmp_path / "spool.sqlite3").write_text("not a database")
    done = run("spool", command, WEBHOOKS_SPOOL=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.endswith(b"spool.sqlite3 cannot be used: file is not a database\n")


# ---- check --broker


def test_check_says_that_the_timetables_fit(run, webhooks_file):
    file = webhooks_file({"events": ["*"], "url": "http://a.test/"})
    done = run("check", file, "--broker")
    assert (done.returncode, done.stderr) == (0, b"")
    said = done.stdout.decode().splitlines()[-1]
    assert re.fullmatch(r"The timetables fit the broker, (redis|amqp)://.*\.", said)
    assert "guest:guest" not in said


def test_check_says_what_does_not_fit(run, webhooks_file, tmp_path):
    (tmp_path / "host.py").write_text(
        "import os, celery, webhooks_celery\n"
        "app = celery.Celery('host', broker=os.environ['CELERY_BROKER_URL'])\n"
        f"app.conf.webhooks_queue = 'test-{tmp_path.name}'\n"
        "webhooks_celery.install(app)\n"
    )
    hook = {"events": ["*"], "url": "http://a.test/?key=s3cr3t", "backoffMs": 3_600_000}
    done = run("check", webhooks_file(hook), "--broker", app="host")
    assert done.returncode == 78
    [problem] = done.stderr.decode().splitlines()
    assert problem.startswith("hook webhook-1: ")
    assert ('["visibility_timeout"] to at least' if ON_REDIS else "Use a quorum queue") in problem
    assert b"s3cr3t" not in done.stdout + done.stderr


@pytest.mark.parametrize("broker", ["refuses", "accepts and never answers"])
@pytest.mark.timeout(25)
def test_check_says_that_the_broker_is_away(broker, run, broker_url, webhooks_file):
    file = webhooks_file({"events": ["*"], "url": "http://a.test/"})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if broker != "refuses":
            taken.listen()
        url = moved(broker_url, taken.getsockname()[1])
        done = run("check", file, "--broker", CELERY_BROKER_URL=url)
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: the broker cannot be reached: ")
