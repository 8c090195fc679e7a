"""Every block of README and docs is executed, so that what a reader copies works."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Block(NamedTuple):
    directive: str
    language: str
    text: str


def blocks(document: Path) -> list[Block]:
    found = re.findall(
        r"^(?:<!-- ([^\n]*) -->\n)?```(\w*)\n(.*?)^```$",
        document.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    return [Block(*block) for block in found]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Background:
    """A command that keeps running; ready when it says so."""

    def __init__(self, script: str, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "-ec", script],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.wait_for(r"running|Listening|ready\.")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern: str) -> None:
        seen = []
        while (line := self._lines.get(timeout=30)) is not None:
            seen.append(line)
            if re.search(pattern, line):
                return
        pytest.fail(f"ended without saying {pattern!r}:\n{''.join(seen)}")

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(timeout=20)


class Reader:
    """Somebody who follows a document from top to bottom in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {"6380": free_port(), "8080": free_port()}
        self.background: list[Background] = []
        unset = ("CELERY_", "IMMICH_", "CI")
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(unset)
        } | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def follow(self, block: Block) -> None:
        text = self.with_free_ports(block.text)
        if block.directive.startswith("file: "):
            file = self._folder / block.directive.removeprefix("file: ")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
            if block.language == "python":
                compile(text, file.name, "exec")
                if file.parent == self._folder:
                    self.run(f"python -c 'import {file.stem}'")
        elif block.directive == "run: background":
            self.background.append(Background(text, self._folder, self.environment))
        elif block.directive == "run":
            self.run(text)
        elif block.directive == "run: clone":
            self.run(f"cd {ROOT}\n{text.replace('/tmp', str(self._folder))}")
        elif block.language == "json":
            json.loads(text)
        else:
            pytest.fail(f"no test executes this block:\n{block.text}")

    def with_free_ports(self, text: str) -> str:
        for port, free in self._ports.items():
            text = text.replace(port, free)
        return text

    def run(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", script],
            cwd=self._folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    someone = Reader(tmp_path)
    yield someone
    for process in reversed(someone.background):
        process.stop()


DJANGO = """
import mysite
import django
django.setup()
from django.test import RequestFactory
from mysite.views import create_person
assert create_person(RequestFactory().post("/")).status_code == 201
"""
FLASK = """
from flask_app import app
answer = app.test_client().post("/persons")
assert len(answer.json["deliveries"]) == 1, answer.json
"""


def test_readme(reader: Reader, tmp_path: Path) -> None:
    for block in blocks(ROOT / "README.md"):
        if block.directive not in ("run: fresh", "run: ci"):
            reader.follow(block)
    listener = reader.background[1]
    listener.wait_for("PersonCreate")
    (tmp_path / "mysite" / "settings.py").write_text(
        'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}\n'
    )
    emitting = next(b.text for b in blocks(ROOT / "README.md") if b.directive == "run")
    exports = "\n".join(re.findall("^export .*", reader.with_free_ports(emitting), re.MULTILINE))
    for application in (DJANGO, FLASK):
        (tmp_path / "use.py").write_text(application)
        reader.run(f"{exports}\npython use.py")
        listener.wait_for("PersonCreate")


@pytest.mark.parametrize("document", DOCUMENTS[1:], ids=lambda path: path.name)
def test_docs(document: Path, reader: Reader) -> None:
    for block in blocks(document):
        reader.follow(block)


def test_first_command_of_readme_works_in_a_fresh_environment(tmp_path: Path) -> None:
    command = next(block.text for block in blocks(ROOT / "README.md") if "fresh" in block.directive)
    clone, environment = tmp_path / "clone", tmp_path / "environment"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    venv.create(environment, with_pip=True)
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=clone,
        env=os.environ | {"PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything went as it should." in done.stdout


def test_ci_runs_the_test_command_of_readme() -> None:
    command = next(block.text for block in blocks(ROOT / "README.md") if "ci" in block.directive)
    assert command.strip() in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_field_table_is_up_to_date() -> None:
    done = subprocess.run([sys.executable, "docs/reference.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run: python docs/reference.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target
