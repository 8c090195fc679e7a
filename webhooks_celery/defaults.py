"""Recommended Celery settings for delivering webhooks.

Used by the package's own app; import them into a ``celeryconfig.py`` to change some.
"""

import os

# Nothing that imports kombu: this may be loaded while gevent is still patching the standard
# library, and kombu would keep the unpatched functions that it finds.
from .model import DEFAULT_QUEUE

broker_url = os.environ.get("CELERY_BROKER_URL") or "amqp://"
broker_connection_retry_on_startup = True
if broker_url.startswith(("redis", "valkey")):
    # Without them a broker that accepts connections and never answers blocks for ever (seconds).
    broker_transport_options = {"socket_timeout": 30, "socket_connect_timeout": 5}
    # What a lost worker held comes back as soon as the hooks' timetables allow, not in an hour.
    webhooks_fit_broker = True
elif broker_url.startswith(("amqp", "pyamqp")):
    # Quorum queues survive the loss of a node, and deliveries that wait for their next attempt
    # wait in the broker. That needs a topic exchange. "Missing" is a webhooks_queue by another
    # name than the default queue's.
    task_default_queue_type = task_create_missing_queue_type = "quorum"
    task_default_exchange_type = task_create_missing_queue_exchange_type = "topic"

result_backend = os.environ.get("CELERY_RESULT_BACKEND") or None
task_ignore_result = result_backend is None

task_default_queue = DEFAULT_QUEUE
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]

# A message is acknowledged when its attempt is over, so a lost worker loses no delivery.
task_acks_late = True
task_reject_on_worker_lost = True
# Where events wait on disk while the broker is away; off when the variable is not set.
webhooks_spool = os.environ.get("WEBHOOKS_SPOOL") or None

# Few messages wait in a worker that is busy with slow receivers while another one is free.
worker_prefetch_multiplier = 2
