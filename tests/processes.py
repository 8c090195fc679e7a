"""Real processes whose output is read as it comes, and which certainly end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from collected import Collected

#: What a process must not inherit: how this machine reaches the network, and our own settings.
_NOT_INHERITED = ("CELERY_", "IMMICH_", "DJANGO_", "_MP_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def environment(**more: str) -> dict[str, str]:
    """The environment of a process: this one's without what could change the outcome."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(_NOT_INHERITED)
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


class Process:
    """``celery …`` or another module in a process of its own; stdout and stderr in one stream."""

    def __init__(self, *command: str, cwd: Path, env: Mapping[str, str]) -> None:
        self.command = " ".join(command)
        self._printed: Collected[str] = Collected()
        self._silent = threading.Event()  # nothing more will be printed
        self._popen = subprocess.Popen(
            [sys.executable, *command],
            cwd=cwd,
            env=environment(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def lines(self) -> list[str]:
        return list(self._printed.items)

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def wait_for_line(self, text: str, count: int = 1, timeout: float = 40) -> str:
        """Wait until ``text`` is in ``count`` lines of the output; return the last of them."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        self._printed.wait_until(lambda _: len(found()) >= count or self._silent.is_set(), timeout)
        lines = found()
        assert len(lines) >= count, f"{text!r} not {count} times in {self.command}:\n{self.output}"
        return lines[count - 1]

    def wait(self, timeout: float = 40) -> int:
        """Wait for the end and return the exit status."""
        try:
            status = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.command} does not end:\n{self.output}") from None
        self._reader.join(timeout)
        return status

    def ask_to_stop(self) -> None:
        """Do what service managers do."""
        self._popen.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Ask it to end and return the exit status."""
        self.ask_to_stop()
        return self.wait()

    def end(self) -> None:
        """End it and whatever it has started, whatever they are doing."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self._printed.add(line)
        self._silent.set()
        self._printed.wake()
