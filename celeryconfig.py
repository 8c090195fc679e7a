"""Settings of the package's own app, `celery -A webhooks_celery …`, when it is run from here.

The recommended ones first; assign below what is different where you run it. The broker comes from
CELERY_BROKER_URL, the result backend (if you want one) from CELERY_RESULT_BACKEND.
"""

from webhooks_celery.defaults import *  # noqa: F403
