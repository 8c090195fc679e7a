"""Deliveries that are put off before the pool gets them."""

from brokers import arguments, take, take_all

from webhooks_celery import emit
from webhooks_celery.admission import put_off


def test_a_delivery_that_is_put_off_comes_back_as_it_was(queue, webhooks_file, make_app):
    file = webhooks_file({"id": "h", "events": ["*"], "url": "http://receiver.test/"})
    app = make_app(webhooks_config=file, task_compression="gzip")
    [delivery] = emit("E", {"n": 1}, app=app)
    message = take(app, queue)
    for _ in range(2):  # and so it does again
        put_off(app, app.tasks["WebhookDelivery"].publisher, message, 3)
        [again] = take_all(app, queue)
        assert arguments(again) == arguments(message)
        assert (again.headers["id"], again.headers["retries"]) == (delivery, 0)
        assert again.headers["eta"]
        message = again
