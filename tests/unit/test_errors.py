from __future__ import annotations

import copy
import json
import pickle

import pytest

from webhooks_celery import errors
from webhooks_celery.errors import (
    AttemptFailed,
    ConfigError,
    DeliveryError,
    EmitError,
    Fault,
    InvalidEvent,
    NotInstalledError,
    UnknownHook,
    WebhooksError,
)

ERRORS = [
    (WebhooksError("anything"), "anything"),
    (
        ConfigError("/etc/w.json", [("", "Not JSON.")]),
        "/etc/w.json cannot be used (1 fault):\n  Not JSON.",
    ),
    (
        ConfigError("/etc/w.json", [Fault("webhooks[0].url", "Bad."), Fault("x", "Worse.")]),
        "/etc/w.json cannot be used (2 faults):\n  webhooks[0].url: Bad.\n  x: Worse.",
    ),
    (
        NotInstalledError("shop"),
        "webhooks are not installed in the Celery app 'shop'. Call webhooks_celery.install(app) "
        "where that app is created and import that module in this process, or import "
        "webhooks_celery.celery to use the app of its own.",
    ),
    (InvalidEvent("payload.user", "contains itself."), "payload.user: contains itself."),
    (
        EmitError("e1", ["d1"], ["d2", "d3"], "OSError: gone"),
        "2 of 3 deliveries were not queued: OSError: gone. Emit again with event_id='e1' when "
        "the broker is back: ids stay the same.",
    ),
    (
        EmitError("e1", [], ["e1"], "OSError: gone"),
        "the event was not queued: OSError: gone. Emit again with event_id='e1' when the broker "
        "is back: ids stay the same.",
    ),
    (DeliveryError("anything"), "anything"),
    (AttemptFailed("a", 2, 3, "HTTP 500.", 500), "hook a, attempt 2 of 3: HTTP 500."),
    (AttemptFailed("a", 1, 1, "refused."), "hook a, attempt 1 of 1: refused."),
    (
        UnknownHook("a", "not in /etc/w.json"),
        "hook a: not in /etc/w.json. This worker and the process that emitted use different "
        "webhooks files; give both the same one, restart them, then run celery webhooks dead "
        "replay.",
    ),
]

each_error = pytest.mark.parametrize(
    ("error", "text"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS]
)


def test_every_error_is_in_the_table():
    tree = {kind for kind in vars(errors).values() if isinstance(kind, type)} - {Fault}
    tree = {kind for kind in tree if issubclass(kind, WebhooksError)}
    assert {type(error) for error, _ in ERRORS} == tree


@each_error
def test_text(error, text):
    assert str(error) == text


def by_pickle(error, protocol):
    return pickle.loads(pickle.dumps(error, protocol))


COPIES = {
    **{f"pickle {n}": lambda error, n=n: by_pickle(error, n) for n in range(6)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    # As a Celery result backend stores it: the type's name and its arguments as JSON.
    "json": lambda error: type(error)(*json.loads(json.dumps(error.args))),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@each_error
def test_survives_a_journey(error, text, copied):
    arrived = copied(error)
    assert type(arrived) is type(error)
    assert arrived.args == error.args
    assert vars(arrived) == vars(error)
    assert str(arrived) == text


def test_config_error_has_faults_whatever_it_was_made_of():
    error = ConfigError("/f", [["webhooks", "Missing."]])
    assert error.faults == (Fault(place="webhooks", problem="Missing."),)


def test_invalid_event_is_a_value_error():
    assert issubclass(InvalidEvent, ValueError)
