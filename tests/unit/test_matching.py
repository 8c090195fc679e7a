from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webhooks_celery.matching import Hooks
from webhooks_celery.model import Hook


def hook(name: str, *events: str, **fields) -> Hook:
    fields = {"position": 1, "url": "http://h/", **fields}
    return Hook(id=name, events=events, **fields)


@pytest.mark.parametrize(
    ("patterns", "name", "wanted"),
    [
        (["PersonCreate"], "PersonCreate", True),
        (["PersonCreate"], "PersonCreated", False),
        (["PersonCreate"], "Person", False),
        (["PersonCreate"], "personcreate", False),
        (["Person*"], "PersonCreate", True),
        (["Person*"], "Person", True),
        (["Person*"], "Perso", False),
        (["Person*"], "MyPerson", False),
        (["*"], "anything", True),
        (["*"], "", True),
        (["a", "b"], "b", True),
        (["a", "b"], "c", False),
        (["Über*"], "Überweisung", True),
        (["a.b*"], "aXb", False),
    ],
)
def test_pattern(patterns, name, wanted):
    found = Hooks([hook("it", *patterns)]).matching(name)
    assert [hook.id for hook in found] == (["it"] if wanted else [])


HOOKS = Hooks(
    [
        hook("all", "*", position=1),
        hook("off", "*", position=2, enabled=False),
        hook("server", "Config*", "ConfigUpdate", position=3, server_events=True),
        hook("exact", "ConfigUpdate", position=4),
        hook("long", "ConfigUp*", "Config*", "C*", "*", position=5),
    ]
)


@pytest.mark.parametrize(
    ("name", "server", "ids"),
    [
        ("ConfigUpdate", False, ["all", "server", "exact", "long"]),
        ("ConfigUpdate", True, ["server"]),
        ("ConfigX", False, ["all", "server", "long"]),
        ("C", False, ["all", "long"]),
        ("X", True, []),
    ],
)
def test_hooks_come_once_and_in_the_order_of_the_file(name, server, ids):
    assert [hook.id for hook in HOOKS.matching(name, server=server)] == ids


def test_the_answer_may_be_changed_without_harm():
    HOOKS.matching("ConfigUpdate").clear()
    assert HOOKS.matching("ConfigUpdate")


def test_get_knows_disabled_hooks_too():
    assert HOOKS.get("off").enabled is False
    assert HOOKS.get("none") is None


def test_size_and_order():
    assert len(HOOKS) == 5
    assert [hook.id for hook in HOOKS] == ["all", "off", "server", "exact", "long"]
    assert not Hooks()


names = st.text("ab", max_size=4)
patterns = st.lists(names.filter(bool) | names.map("{}*".format), min_size=1, max_size=4)


@settings(deadline=None)
@given(files=st.lists(st.tuples(patterns, st.booleans(), st.booleans()), max_size=6), name=names)
def test_the_index_finds_what_trying_every_hook_finds(files, name):
    hooks = [
        hook(str(n), *events, position=n, enabled=enabled, server_events=server)
        for n, (events, enabled, server) in enumerate(files)
    ]

    def wants(pattern: str) -> bool:
        return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern

    tried = [hook for hook in hooks if hook.enabled and any(map(wants, hook.events))]
    assert Hooks(hooks).matching(name) == tried
    assert Hooks(hooks).matching(name, server=True) == [h for h in tried if h.server_events]
