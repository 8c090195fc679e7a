"""The spool: what it has taken is there, in order, and is sent by one flush only."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from webhooks_celery.model import Message
from webhooks_celery.spool import Spool, SpoolError


def message(delivery: object, payload: str = "null") -> Message:
    return Message(id=str(delivery), task="WebhookDelivery", kwargs={"payload": payload})


def messages(*deliveries: object) -> list[Message]:
    return [message(each) for each in deliveries]


def waiting(spool: Spool) -> list[str]:
    return [each.id for each, _ in spool.browse()]


def flushed(spool: Spool) -> list[str]:
    sent: list[str] = []
    assert spool.flush(lambda each: sent.append(each.id)) == len(sent)
    return sent


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "made" / "when needed")


def script(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    """A process that works on a spool."""
    code = f"import sys\nfrom pathlib import Path\nfrom test_spool import *\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def test_before_anything_is_written_there_is_nothing(spool, tmp_path):
    assert waiting(spool) == flushed(spool) == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_added_is_sent_once_and_in_order(spool):
    spool.add(messages("c", "a"))
    spool.add([message("b", '{"name":"Zoë"}')])
    assert waiting(spool) == ["c", "a", "b"]

    sent: list[Message] = []
    assert spool.flush(sent.append) == 3

    assert sent == [*messages("c", "a"), message("b", '{"name":"Zoë"}')]
    assert waiting(spool) == flushed(spool) == []


def test_more_than_one_batch_keeps_its_order(spool):
    everything = [str(number) for number in range(250)]
    spool.add(messages(*everything))
    assert waiting(spool) == everything
    assert flushed(spool) == everything


def test_an_id_that_waits_already_is_not_repeated(spool):
    spool.add([message("a", "1")])
    spool.add([message("b"), message("a", "2")])
    assert [each for each, _ in spool.browse()] == [message("a", "1"), message("b")]


def test_a_message_may_come_back_after_it_was_sent(spool):
    for _ in range(2):
        spool.add(messages("a"))
        assert flushed(spool) == ["a"]


def test_what_arrives_during_a_flush_is_sent_too(spool):
    spool.add(messages("a"))
    sent: list[str] = []

    def send(each: Message) -> None:
        sent.append(each.id)
        if each.id == "a":
            spool.add(messages("b"))

    assert spool.flush(send) == 2
    assert sent == ["a", "b"]


@pytest.mark.parametrize("interruption", [ConnectionError, KeyboardInterrupt])
def test_an_interrupted_flush_keeps_the_rest_for_the_next_one(spool, interruption):
    spool.add(messages(*"abcd"))

    def send(each: Message) -> None:
        if each.id == "c":
            raise interruption

    with pytest.raises(interruption):
        spool.flush(send)

    assert waiting(spool) == ["c", "d"]
    assert flushed(spool) == ["c", "d"]  # at once: the leases were given back


def test_looking_keeps_nobody_from_writing(spool):
    spool.add(messages(*range(200)))
    look = spool.browse()
    next(look)
    spool.add(messages("new"))
    assert len(flushed(spool)) == 201


def test_threads_share_the_work(spool):
    everything = {str(number) for number in range(500)}
    spool.add(messages(*everything))
    sent: list[str] = []
    together = threading.Barrier(4)

    def flush() -> None:
        together.wait()
        spool.flush(lambda each: sent.append(each.id))

    threads = [threading.Thread(target=flush) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(sent) == 500
    assert set(sent) == everything


def test_processes_share_the_work(spool, tmp_path):
    spool.add(messages(*range(1000)))
    code = "sys.stdin.read(); Spool(Path(sys.argv[1])).flush(lambda each: print(each.id))"
    folder = tmp_path / "made" / "when needed"
    processes = [script(code, folder, stdin=subprocess.PIPE) for _ in range(3)]
    outputs = [process.communicate() for process in processes]
    assert [error for _, error in outputs] == [""] * 3
    sent = [line for output, _ in outputs for line in output.split()]
    assert sorted(sent, key=int) == [str(number) for number in range(1000)]


def test_many_processes_may_write_at_once(spool, tmp_path):
    code = "[Spool(Path(sys.argv[1])).add(messages(f'{sys.argv[2]}-{n}')) for n in range(20)]"
    folder = tmp_path / "made" / "when needed"
    processes = [script(code, folder, name) for name in "abcd"]
    assert [process.communicate()[1] for process in processes] == [""] * 4
    found = waiting(spool)
    assert len(found) == 80
    for name in "abcd":  # each process's own order
        assert [each for each in found if each[0] == name] == [f"{name}-{n}" for n in range(20)]


def test_a_size_limit_is_kept_and_told(tmp_path):
    spool = Spool(tmp_path, max_bytes=100_000)
    spool.add([message("fits", "x" * 50_000)])
    with pytest.raises(SpoolError, match=r"has reached webhooks_spool_max_bytes \(100000\)"):
        spool.add([message("small"), message("too much", "x" * 50_000)])
    assert waiting(spool) == ["fits"]

    assert flushed(spool) == ["fits"]
    spool.add([message("now it fits", "x" * 50_000)])  # the room was given back
    assert waiting(spool) == ["now it fits"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match=r"spool\.sqlite3 cannot be used: .*Not a directory"):
        Spool(tmp_path / "file" / "spool").add(messages("a"))


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda spool: spool.add(messages("a")), id="add"),
        pytest.param(waiting, id="browse"),
        pytest.param(flushed, id="flush"),
    ],
)
def test_a_file_that_is_no_spool_is_told_and_left_alone(use, tmp_path):
    file = tmp_path / "spool.sqlite3"
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(SpoolError, match="cannot be used: file is not a database"):
        use(Spool(tmp_path))
    assert file.read_bytes() == b"not a database" * 100


def test_a_full_disk_is_told_and_what_was_written_stays(spool, tmp_path):
    spool.add(messages("before"))
    code = """
try:
    Spool(Path(sys.argv[1])).add([message(n, "x" * 10_000) for n in range(100)])
except SpoolError as error:
    print(error)
"""
    folder = tmp_path / "made" / "when needed"

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    output, error = script(code, folder, preexec_fn=no_room).communicate()

    assert (error, output.strip()) == (
        "",
        f"the spool {folder / 'spool.sqlite3'} cannot be used: disk I/O error",
    )
    assert waiting(spool) == ["before"]
    spool.add(messages("after"))
    assert flushed(spool) == ["before", "after"]


def test_a_killed_writer_loses_nothing_that_it_reported(spool, tmp_path):
    folder = tmp_path / "made" / "when needed"
    code = """
spool = Spool(Path(sys.argv[1]))
for n in range(10**6):
    spool.add(messages(f"{sys.argv[2]}-{n}-a", f"{sys.argv[2]}-{n}-b"))
    print(f"{sys.argv[2]}-{n}", flush=True)
"""
    reported: list[str] = []
    for life, killed_after in enumerate((1, 7, 20)):
        writer = script(code, folder, life)
        assert writer.stdout is not None
        reported += [writer.stdout.readline().strip() for _ in range(killed_after)]
        writer.kill()
        reported += complete_lines(writer.communicate()[0])

    found = waiting(spool)
    pairs = [each.removesuffix("-a") for each in found[::2]]
    assert found == [each for pair in pairs for each in (f"{pair}-a", f"{pair}-b")]
    assert set(reported) <= set(pairs)
    with closing(sqlite3.connect(folder / "spool.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert flushed(spool) == found


def complete_lines(text: str) -> Sequence[str]:
    return text[: text.rfind("\n") + 1].split()


def test_what_a_killed_flush_had_taken_is_not_lost(spool, tmp_path):
    spool.add(messages(*"abc"))
    folder = tmp_path / "made" / "when needed"
    code = """
def send(each):
    print(each.id, flush=True)
    if each.id == "b":
        sys.stdin.read()
Spool(Path(sys.argv[1])).flush(send)
"""
    flusher = script(code, folder, stdin=subprocess.PIPE)
    assert flusher.stdout is not None
    assert [flusher.stdout.readline().strip() for _ in "ab"] == ["a", "b"]
    assert flushed(spool) == []  # not twice while the other one may still be at it
    flusher.kill()
    flusher.communicate()

    assert waiting(spool) == ["a", "b", "c"]
    with closing(sqlite3.connect(folder / "spool.sqlite3")) as database, database:
        database.execute("UPDATE spool SET leased_until = leased_until - 60")  # a minute later
    assert flushed(spool) == ["a", "b", "c"]
