"""``install``: webhooks in a host's app, beside what the host does with it."""

import pytest
from brokers import ask, outcome, take, take_all
from celery import Celery
from kombu import Queue

from webhooks_celery import emit, install
from webhooks_celery.broker import fit_redis
from webhooks_celery.errors import AttemptFailed


@pytest.fixture
def file(receiver, webhooks_file) -> str:
    hook = {"id": "h", "events": ["*"], "url": receiver.url("/in"), "backoffMs": 1}
    return webhooks_file(hook)


def add_task(app: Celery):
    @app.task(name="host.add", shared=False)
    def add(a, b):
        return a + b

    return add


def test_none_of_the_hosts_settings_change(settings, file):
    def table(*steps) -> dict:
        app = Celery("host", set_as_current=False)
        for step in steps:
            step(app)
        assert app.tasks
        return dict(app.conf.table(with_defaults=True, censored=False))

    def configure(app: Celery) -> None:
        app.conf.update({**settings, "webhooks_config": file, "task_acks_late": False})

    untouched = table(configure)
    assert table(configure, install) == untouched
    assert table(install, configure) == untouched
    assert table(install, lambda app: app.tasks, configure, install) == untouched


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param("configure install finalize", id="configured first"),
        pytest.param("install configure finalize", id="configured later"),
        pytest.param("finalize install configure", id="installed after tasks were used"),
        pytest.param("install finalize configure", id="configured after tasks were used"),
        pytest.param("configure queues install finalize", id="installed after queues were used"),
        pytest.param("configure install install finalize", id="installed twice"),
    ],
)
def test_a_worker_consumes_the_hosts_queues_and_ours(steps):
    app = Celery("host", set_as_current=False)
    for step in steps.split():
        if step == "install":
            install(app)
        elif step == "finalize":
            assert app.tasks
        elif step == "queues":
            assert app.amqp.queues
        else:
            app.conf.update(task_queues=[Queue("a"), Queue("b")], webhooks_queue="hooks")
    assert list(app.amqp.queues.consume_from) == ["a", "b", "hooks"]
    assert {name for name in app.tasks if name.startswith("Webhook")} == {
        "WebhookDelivery",
        "WebhookEmit",
    }


def test_a_host_with_a_queue_of_that_name_keeps_it():
    own = Queue("hooks", routing_key="special", queue_arguments={"x-max-length": 9})
    app = Celery("host", set_as_current=False)
    app.conf.update(task_queues=[own], webhooks_queue="hooks")
    install(app)
    assert dict(app.amqp.queues) == {"hooks": own}


def test_host_tasks_and_deliveries_run_in_one_worker(file, receiver, make_app, run_worker):
    app = make_app(webhooks_config=file)
    install(app)
    add = add_task(app)
    run_worker(app)

    assert outcome(app, add.delay(1, 2).id) == 3
    [delivery] = emit("E", app=app)
    assert outcome(app, delivery)["status"] == 200
    assert len(receiver.requests) == 1


def test_a_worker_with_other_queues_leaves_deliveries_alone(
    file, settings, queue, make_app, run_worker, log
):
    app = make_app(webhooks_config=file)
    add = add_task(app)
    run_worker(app, queues=[settings["task_default_queue"]])
    ids = emit("E", app=app)

    assert outcome(app, add.delay(1, 2).id) == 3  # so it has had time for the delivery
    assert [message.headers["id"] for message in take_all(app, queue)] == ids
    [warning] = log.problems
    assert f"does not consume the queue {queue}" in warning.getMessage()
    assert "Add it to -Q" in warning.getMessage()


def test_a_worker_for_our_queue_delivers(file, queue, make_app, run_worker, log):
    app = make_app(webhooks_config=file)
    run_worker(app, queues=[queue])
    [delivery] = emit("E", app=app)
    assert outcome(app, delivery)["status"] == 200
    assert log.problems == []


def test_two_apps_in_one_process_keep_apart(
    receiver, webhooks_file, new_queue, make_app, run_worker
):
    def app(name: str) -> Celery:
        hook = {"id": "same-id", "events": ["*"], "url": receiver.url(f"/{name}")}
        return make_app(
            webhooks_config=webhooks_file(hook, name=f"{name}.json"),
            webhooks_queue=new_queue(),
            webhooks_header_prefix=f"X-{name}-",
        )

    one, other = app("one"), app("other")
    run_worker(one)
    [of_other] = emit("E", app=other)
    [of_one] = emit("E", app=one)

    assert outcome(one, of_one)["status"] == 200
    [request] = receiver.requests
    assert (request.path, request.headers["X-one-Delivery-Id"]) == ("/one", of_one)
    assert take(other, other.conf.webhooks_queue).headers["id"] == of_other


@pytest.mark.redis
def test_what_workers_of_other_apps_hold_is_left_to_them(new_queue, make_app):
    """In the same database, and for longer than our visibility timeout."""
    theirs, ours = make_app(), make_app(webhooks_fit_broker=True, webhooks_fit_margin=0)
    queue = Queue(new_queue())
    fit_redis(ours, [])
    assert ours.conf.broker_transport_options["visibility_timeout"] == 0
    with theirs.connection_for_write() as held, ours.connection_for_read() as sweeping:
        held.Producer().publish("one", routing_key=queue.name, declare=[queue])
        message = queue(held.default_channel).get()
        sweeping.default_channel.qos.restore_visible(interval=1)
        assert queue(held.default_channel).get() is None
        message.ack()


@pytest.mark.redis
def test_a_longer_visibility_timeout_is_kept(make_app):
    longer = {"visibility_timeout": 7200}
    app = make_app(webhooks_fit_broker=True, broker_transport_options=longer)
    fit_redis(app, [])
    assert app.conf.broker_transport_options["visibility_timeout"] == 7200


def test_inspect_shows_the_hooks_of_a_hosts_worker(file, receiver, make_app, run_worker):
    app = make_app(webhooks_config=file)
    worker = run_worker(app)
    shown = ask(app, worker.hostname, "webhooks")
    assert shown["file"] == file
    assert [(hook["id"], hook["to"]) for hook in shown["hooks"]] == [("h", receiver.url(""))]


@pytest.mark.parametrize(
    "theirs",
    [
        {"task_acks_late": False, "task_reject_on_worker_lost": False},
        {"task_serializer": "pickle", "accept_content": ["pickle", "json"]},
        {"task_serializer": "pickle", "accept_content": ["pickle"], "result_serializer": "pickle"},
        {"task_routes": {"*": {"queue": "elsewhere"}}},
        {"task_create_missing_queues": False},
        {"task_annotations": {"*": {"max_retries": 0, "default_retry_delay": 9999}}},
        {"task_protocol": 1},
        {"task_compression": "gzip"},
        {"task_queue_max_priority": 10, "task_default_priority": 5},
        {"enable_utc": False, "timezone": "Asia/Tokyo"},
        {"task_publish_retry": False},
        {"task_send_sent_event": True, "task_track_started": True},
        {"worker_prefetch_multiplier": 1},
    ],
    ids=lambda theirs: ", ".join(theirs),
)
def test_whatever_a_host_has_set_deliveries_are_made_and_retried(
    theirs, file, receiver, make_app, run_worker
):
    receiver.answer("/in", 500, 200)
    app = make_app(webhooks_config=file, **theirs)
    run_worker(app)
    [delivery] = emit("E", app=app)
    assert outcome(app, delivery)["attempt"] == 2


def test_a_host_that_runs_tasks_eagerly_delivers_at_once(file, receiver):
    receiver.answer("/in", 500, 200)
    app = Celery("tests of a host", broker="amqp://no-broker.invalid", set_as_current=False)
    app.conf.update(task_always_eager=True, webhooks_config=file)
    install(app)
    [delivery] = emit("E", app=app)
    emit.delay("E", app=app)
    assert [request.headers["X-Immich-Delivery-Id"] for request in receiver.requests[:2]] == [
        delivery,
        delivery,
    ]
    assert len(receiver.requests) == 3


def test_a_host_whose_eager_tasks_propagate_gets_the_failed_attempt(file, receiver):
    receiver.answer("/in", 500)
    app = Celery("tests of a host", broker="amqp://no-broker.invalid", set_as_current=False)
    app.conf.update(task_always_eager=True, task_eager_propagates=True, webhooks_config=file)
    install(app)
    with pytest.raises(AttemptFailed) as raised:
        emit("E", app=app)
    assert (raised.value.attempt, raised.value.status) == (1, 500)
    assert len(receiver.requests) == 1
