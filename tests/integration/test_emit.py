"""``emit``: what is queued, for whom, and what a caller is told when it cannot be."""

import socket
from uuid import UUID, uuid4

import pytest
from brokers import Relay, arguments, moved, settings_for, take, take_all
from celery import Celery, signals

from webhooks_celery import emit
from webhooks_celery.errors import ConfigError, EmitError, InvalidEvent, NotInstalledError

URL = "https://receiver.test/"


def hook(name, *events, **fields):
    return {"id": name, "events": list(events), "url": URL, **fields}


@pytest.fixture
def three(webhooks_file) -> str:
    return webhooks_file(*(hook(name, "PersonCreate") for name in ("zeta", "alpha", "mid")))


def test_one_delivery_for_each_hook_in_the_order_of_the_file(three, queue, make_app):
    app = make_app(webhooks_config=three)

    ids = emit("PersonCreate", {"id": 1}, app=app)

    messages = take_all(app, queue)
    assert [arguments(message)["hook"] for message in messages] == ["zeta", "alpha", "mid"]
    assert [message.headers["id"] for message in messages] == ids
    assert [str(UUID(delivery)) for delivery in ids] == ids
    assert len(set(ids)) == 3
    assert len({arguments(message)["timestamp"] for message in messages}) == 1


@pytest.mark.parametrize(
    ("event", "server", "expected"),
    [
        ("PersonCreate", False, ["exact", "prefix", "all", "server"]),
        ("PersonUpdate", False, ["prefix", "all", "server"]),
        ("Person", False, ["prefix", "all", "server"]),
        ("personCreate", False, ["all", "server"]),
        ("AssetCreate", False, ["all", "server"]),
        ("PersonCreate", True, ["server"]),
    ],
)
def test_events_reach_the_hooks_that_name_them(
    event, server, expected, queue, webhooks_file, make_app
):
    file = webhooks_file(
        hook("exact", " PersonCreate "),
        hook("prefix", "Person*", "PersonCreate"),
        hook("all", "*"),
        hook("server", "*", includeServerEvents=True),
        hook("off", "*", includeServerEvents=True, enabled=False),
    )
    app = make_app(webhooks_config=file)

    ids = emit(event, server=server, app=app)

    messages = take_all(app, queue)
    assert [arguments(message)["hook"] for message in messages] == expected
    assert [message.headers["id"] for message in messages] == ids


def test_an_event_that_no_hook_wants_queues_nothing(three, queue, make_app):
    app = make_app(webhooks_config=three)
    assert emit("AssetCreate", object(), app=app) == []  # the payload is not even looked at
    assert take_all(app, queue) == []


def test_closing_gives_connections_back_and_more_can_be_emitted(three, queue, make_app):
    app = make_app(webhooks_config=three)
    publisher = app.tasks["WebhookDelivery"].publisher
    emit("PersonCreate", app=app)
    with publisher.producer() as producer:
        connection = producer.connection
        assert connection.connected
    publisher.close()
    assert not connection.connected
    emit("PersonCreate", app=app)
    assert len(take_all(app, queue)) == 6


@pytest.mark.parametrize("config", [None, "/does/not/exist.json"])
def test_without_a_file_webhooks_are_off(config, queue, make_app, log):
    app = make_app(webhooks_config=config)

    assert [emit("PersonCreate", app=app) for _ in range(3)] == [[], [], []]

    assert take_all(app, queue) == []
    why = f"{config} does not exist" if config else "IMMICH_WEBHOOKS_CONFIG is not set"
    assert [record.getMessage() for record in log.ours] == [f"webhooks are off: {why}"]


def test_the_file_is_named_by_the_environment(three, make_app, monkeypatch):
    monkeypatch.setenv("IMMICH_WEBHOOKS_CONFIG", three)
    assert len(emit("PersonCreate", app=make_app())) == 3


def test_the_current_app_is_used(three, queue, make_app):
    app = make_app(webhooks_config=three)
    app.set_current()
    ids = emit("PersonCreate")
    assert [message.headers["id"] for message in take_all(app, queue)] == ids


@pytest.mark.parametrize("event_id", [uuid4(), str(uuid4()), "order 17 was paid"])
def test_the_same_event_id_gives_the_same_delivery_ids(event_id, three, queue, make_app):
    app = make_app(webhooks_config=three)
    first, second = (emit("PersonCreate", {"try": n}, event_id=event_id, app=app) for n in (1, 2))
    assert first == second != emit("PersonCreate", app=app)
    assert [message.headers["id"] for message in take_all(app, queue)][:6] == first * 2


def test_a_message_says_nothing_but_the_event(queue, webhooks_file, make_app, monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cr3t-marker")
    secret = hook("h", "E", headers={"Authorization": "Bearer ${TOKEN}"}) | {
        "url": "https://receiver.test/in?key=s3cr3t-marker"
    }
    app = make_app(webhooks_config=webhooks_file(secret))
    emit("E", {"password": "of a person"}, app=app)
    [message] = take_all(app, queue)
    sent = arguments(message)
    assert (sent["hook"], sent["event"], sent["payload"]) == (
        "h",
        "E",
        '{"password":"of a person"}',
    )
    assert "s3cr3t" not in f"{message.body}{message.headers}{message.properties}"
    assert "of a person" not in str(message.headers)  # monitors show the headers
    assert message.headers["shadow"] == "WebhookDelivery[h]"


def test_a_faulty_file_queues_nothing(queue, webhooks_file, make_app):
    file = webhooks_file(hook("good", "E"), hook("bad", "E", timeoutMs=0, retry=3))
    app = make_app(webhooks_config=file)

    for _ in range(2):  # the file is read once, and told every time
        with pytest.raises(ConfigError) as raised:
            emit("E", app=app)
        assert [fault.place for fault in raised.value.faults] == [
            "webhooks[1].retry",
            "webhooks[1].timeoutMs",
        ]
    assert take_all(app, queue) == []


@pytest.mark.parametrize(
    ("name", "payload", "place"),
    [
        ("", None, "name"),
        ("Zero\r\nX-Injected: 1", None, "name"),
        ("PersonCreate", {"user": {"avatar": b"\x89PNG"}}, "payload.user.avatar"),
        ("PersonCreate", [0, float("nan")], "payload[1]"),
    ],
)
def test_an_event_that_cannot_be_sent_queues_nothing(name, payload, place, three, queue, make_app):
    app = make_app(webhooks_config=three)
    for call in (emit, emit.delay):
        with pytest.raises(InvalidEvent) as raised:
            call(name, payload, app=app)
        assert raised.value.place == place
    assert take_all(app, queue) == []


def test_an_app_without_webhooks_is_told_what_to_do():
    for call in (emit, emit.delay):
        with pytest.raises(NotInstalledError, match=r"'shop'.*install\(app\)"):
            call("E", app=Celery("shop", set_as_current=False))


def test_a_broker_that_refuses_is_an_error_with_all_ids(broker_url, three, make_app):
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        nowhere = settings_for(moved(broker_url, taken.getsockname()[1]))
        app = make_app(webhooks_config=three, **nowhere)
        with pytest.raises(EmitError, match="3 of 3 deliveries were not queued") as raised:
            emit("PersonCreate", event_id="x", app=app)
        with pytest.raises(EmitError) as delayed:
            emit.delay("PersonCreate", app=app)

    assert raised.value.queued == ()
    assert len(raised.value.not_queued) == 3
    assert UUID(delayed.value.event_id)


def test_a_broker_lost_half_way_is_told_and_made_good(broker_url, three, queue, make_app):
    relay = Relay(broker_url)
    app = make_app(webhooks_config=three, **settings_for(relay.url))

    @signals.after_task_publish.connect(weak=False, sender="WebhookDelivery")
    def lose_the_broker(**_):
        relay.cut()

    try:
        with pytest.raises(EmitError) as raised:
            emit("PersonCreate", app=app)
    finally:
        signals.after_task_publish.disconnect(lose_the_broker, sender="WebhookDelivery")

    error = raised.value
    healthy = make_app(webhooks_config=three)
    assert take(healthy, queue).headers["id"] == error.queued[0]
    assert take_all(healthy, queue) == []
    assert (len(error.queued), len(error.not_queued)) == (1, 2)
    again = emit("PersonCreate", event_id=error.event_id, app=healthy)
    assert again == [*error.queued, *error.not_queued]
