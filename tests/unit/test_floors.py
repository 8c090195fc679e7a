"""The house has floors: a module imports only from lower ones."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import webhooks_celery

FLOORS = {
    "errors": 0,
    "model": 0,
    "receiver": 0,
    "redis_scripts": 0,
    "defaults": 1,
    "embedded": 1,
    "json_reader": 1,
    "matching": 1,
    "payload": 1,
    "redaction": 1,
    "request": 1,
    "retry": 1,
    "shares": 1,
    "sockets": 1,
    "spool": 1,
    "plan": 2,
    "route": 2,
    "variables": 2,
    "broker": 3,
    "connection": 3,
    "redis_transport": 3,
    "schema": 3,
    "config": 4,
    "publisher": 4,
    "admission": 5,
    "dead_letters": 5,
    "explain": 4,
    "json_schema": 4,
    "describe": 5,
    "transport": 5,
    "tasks": 6,
    "sender": 7,
    "emitter": 8,
    "worker": 9,
    "installer": 10,
    "celery": 11,
    "demo": 11,
    "cli_context": 12,
    "cli_dead": 13,
    "cli_spool": 13,
    "cli": 14,
    "__init__": 15,  # hands out names from everywhere, so nobody may ask it
}
#: The libraries that only some modules may know.
KEEPERS = {"marshmallow": {"schema", "json_schema"}, "requests": {"route"}}

PACKAGE = "webhooks_celery"
SOURCES = {path.stem: path for path in sorted(Path(webhooks_celery.__file__).parent.glob("*.py"))}


def imports(source: str) -> Iterator[str]:
    """Yield the full name of everything imported, at the top or within a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = ".".join(filter(None, (PACKAGE if node.level else "", node.module)))
            yield from (f"{home}.{alias.name}" for alias in node.names)


def neighbours(source: str) -> set[str]:
    """Return the modules of this package that ``source`` imports."""
    inside = [name.split(".")[1:] for name in imports(source) if name.split(".")[0] == PACKAGE]
    return {path[0] if path and path[0] in SOURCES else "__init__" for path in inside}


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import json, requests", set()),
        ("from .errors import Fault", {"errors"}),
        ("def f():\n    from .schema import parse", {"schema"}),
        ("from . import errors, model", {"errors", "model"}),
        ("from . import emit", {"__init__"}),
        ("import webhooks_celery", {"__init__"}),
        ("import webhooks_celery.retry as r", {"retry"}),
        ("from webhooks_celery import emit, model", {"__init__", "model"}),
        ("from webhooks_celery.model import Hook", {"model"}),
    ],
)
def test_this_test_sees_imports(source, modules):
    assert neighbours(source) == modules


def test_every_module_has_a_floor():
    homeless = ", ".join(sorted(SOURCES.keys() - FLOORS.keys()))
    gone = ", ".join(sorted(FLOORS.keys() - SOURCES.keys()))
    assert not homeless, f"give these modules a floor in FLOORS: {homeless}"
    assert not gone, f"take these modules out of FLOORS, they are gone: {gone}"


@pytest.mark.parametrize("module", SOURCES)
def test_a_module_imports_only_from_lower_floors(module):
    floor = FLOORS.get(module)
    assert floor is not None, f"give {module} a floor in FLOORS"
    found = neighbours(SOURCES[module].read_text("utf-8"))
    wrong = {name: FLOORS[name] for name in found if FLOORS.get(name, -1) >= floor}
    assert not wrong, f"{module} is on floor {floor} and must not import from {wrong}"


@pytest.mark.parametrize("library", KEEPERS)
def test_a_library_stays_with_its_keepers(library):
    knowing = {
        module
        for module, path in SOURCES.items()
        if any(name.split(".")[0] == library for name in imports(path.read_text("utf-8")))
    }
    assert knowing == KEEPERS[library]


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("webhooks_celery", {"celery", "marshmallow", "requests"}),
        ("webhooks_celery.cli", {"marshmallow", "requests", "webhooks_celery.worker"}),
        ("webhooks_celery.celery", {"marshmallow", "requests"}),
        ("webhooks_celery.defaults", {"celery", "kombu"}),
    ],
)
def test_an_import_is_light(module, unwanted):
    script = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert module in loaded.stdout.split()
    assert unwanted & set(loaded.stdout.split()) == set()
