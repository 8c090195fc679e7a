from __future__ import annotations

import dataclasses
import json

import pytest

from webhooks_celery.config import Config
from webhooks_celery.describe import describe_config, describe_hook, hook_line
from webhooks_celery.matching import Hooks
from webhooks_celery.model import Hook

HOOK = Hook(
    id="person-hooks",
    position=1,
    events=("Person*", "AssetCreate"),
    url="https://h.example:8443/in/s3cret?key=s3cret",
    headers={"X-Key": "s3cret"},
)
SHOWN = {
    "id": "person-hooks",
    "method": "POST",
    "to": "https://h.example:8443",
    "events": ["Person*", "AssetCreate"],
    "server_events": False,
    "attempts": 3,
    "timetable": "at once, +2 s, +6 s",
    "deadline": "10 s",
    "enabled": True,
}


def test_describe_hook():
    assert describe_hook(HOOK) == SHOWN


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        (Config(path="/f", hooks=Hooks([HOOK])), {"file": "/f", "hooks": [SHOWN]}),
        (Config(path="/f", hooks=Hooks()), {"file": "/f", "hooks": []}),
        (Config(path=None, hooks=Hooks(), off="why"), {"file": None, "off": "why", "hooks": []}),
    ],
    ids=["on", "no hooks", "off"],
)
def test_describe_config(config, shown):
    assert describe_config(config) == shown
    assert json.loads(json.dumps(shown)) == shown


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {},
            "hook person-hooks: POST https://h.example:8443 for Person*, AssetCreate; "
            "attempts: 3 (at once, +2 s, +6 s), deadline 10 s",
        ),
        (
            {"method": "PUT", "server_events": True, "attempts": 1, "timeout_ms": 250},
            "hook person-hooks: PUT https://h.example:8443 for Person*, AssetCreate and server "
            "events; attempts: 1 (at once), deadline 250 ms",
        ),
        (
            {"enabled": False, "attempts": 1},
            "hook person-hooks: POST https://h.example:8443 for Person*, AssetCreate; "
            "attempts: 1 (at once), deadline 10 s; disabled",
        ),
    ],
    ids=["plain", "everything", "disabled"],
)
def test_hook_line(changes, line):
    assert hook_line(dataclasses.replace(HOOK, **changes)) == line


def test_secrets_are_not_shown():
    shown = [describe_config(Config(path="/f", hooks=Hooks([HOOK]))), hook_line(HOOK)]
    assert "s3cret" not in json.dumps(shown)
