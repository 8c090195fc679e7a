"""This machine: what is installed, what processes use up, where things are kept."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic
from typing import Any

import psutil

#: Where ``benchmarks`` and ``webhooks_celery`` are found.
ROOT = Path(__file__).resolve().parent.parent

_PACKAGES = ("celery", "kombu", "requests", "urllib3", "redis", "hiredis", "amqp", "gevent")
#: What a measured process must not inherit: how this machine reaches the network, settings of ours.
_NOT_INHERITED = (
    *("CELERY_", "IMMICH_", "WEBHOOKS_", "BENCHMARK_", "PYTHON"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NODE_"),
)


class Failed(Exception):
    """A benchmark cannot be run, or what it measured does not count; says why."""


def until(done: Callable[[], Any], what: str, timeout: float, every: float = 0.05) -> None:
    """Look again and again whether something that nobody announces has come about."""
    never = threading.Event()
    deadline = monotonic() + timeout
    while not done():
        if monotonic() > deadline:
            raise Failed(f"not within {timeout:g} s: {what}")
        never.wait(every)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cache_folder(name: str) -> Path:
    """Return a folder outside the tree that is kept from one run to the next."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "webhooks_celery-benchmarks" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def environment(folder: Path | None = None, **more: str) -> dict[str, str]:
    """The environment of a measured process: this one's without what could change the outcome.

    Args:
        folder: searched for modules before everything else.
        more: variables to add.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(_NOT_INHERITED)
    }
    path = os.pathsep.join(str(place) for place in (folder, ROOT) if place is not None)
    return {**kept, "PYTHONPATH": path, **more}


def in_child(module: str, *arguments: str, env: Mapping[str, str], cwd: Path = ROOT) -> Any:
    """Run ``python -m MODULE`` and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env=dict(env),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{module} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)


def with_descendants(pids: Iterable[int]) -> list[psutil.Process]:
    """Return these processes and all that they started."""
    roots = [psutil.Process(pid) for pid in pids]
    return [*roots, *(child for root in roots for child in root.children(recursive=True))]


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return user and system time of these processes and their descendants, ended ones included."""
    return sum(sum(process.cpu_times()[:4]) for process in with_descendants(pids))


def pss_mib(pids: Iterable[int]) -> float:
    """Return the memory of these processes and their descendants, shared pages shared out."""
    found = (process.memory_full_info().pss for process in with_descendants(pids))
    return float(sum(found)) / 2**20


def describe() -> dict[str, Any]:
    """Return the machine's cores, CPU model and memory."""
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def installed() -> dict[str, str]:
    """Return the versions of what is installed here; servers that are asked answer for theirs."""
    found = {"python": platform.python_version(), "webhooks_celery": version("webhooks_celery")}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return {
        **found,
        "node": _said("node", "--version"),
        "nginx": _said("nginx", "-v").rpartition("/")[2],
    }


def _said(command: str, argument: str) -> str:
    path = executable(command)
    if path is None:
        return "not installed"
    done = subprocess.run([path, argument], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def executable(command: str) -> str | None:
    """Return the path of a command, also where the search path lacks the servers' folders."""
    return shutil.which(command) or shutil.which(command, path="/usr/sbin:/usr/local/sbin")
