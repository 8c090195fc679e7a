"""The app of its own: ``celery -A webhooks_celery worker``.

Configured by ``celeryconfig.py`` where there is one (in the current directory or on the path),
else by ``webhooks_celery.defaults``.
"""

from __future__ import annotations

from importlib.util import find_spec

from celery import Celery
from celery.utils.imports import cwd_in_path

from .broker import use_redis_transport
from .installer import install

with cwd_in_path():
    _config = "celeryconfig" if find_spec("celeryconfig") else "webhooks_celery.defaults"

use_redis_transport()
app = Celery("webhooks_celery", config_source=_config)
install(app)
