"""Find the webhooks file and read it, once per app and process."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from celery import Celery

from .errors import ConfigError, Fault
from .matching import Hooks

logger = logging.getLogger("webhooks_celery")

ENVIRONMENT_VARIABLE = "IMMICH_WEBHOOKS_CONFIG"


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What is known of the webhooks file."""

    path: str | None  #: the file, or None when none is named
    hooks: Hooks
    off: str = ""  #: why webhooks are off; empty when they are on


def read(path: str | None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the webhooks file at ``path``; no path or no such file means webhooks are off.

    Raises:
        ConfigError: when the path is not absolute, the file cannot be read or is faulty.
    """
    if not path:
        return Config(path=None, hooks=Hooks(), off=f"{ENVIRONMENT_VARIABLE} is not set")
    if not os.path.isabs(path):
        raise ConfigError(path, [Fault("", "The path must be absolute: begin it with /.")])
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return Config(path=path, hooks=Hooks(), off=f"{path} does not exist")
    except IsADirectoryError:
        raise ConfigError(path, [Fault("", "Is a directory; name the file in it.")]) from None
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise ConfigError(path, [Fault("", f"Cannot be read: {problem}.")]) from None
    from .schema import parse  # only a process that has a file needs Marshmallow

    return Config(path=path, hooks=parse(content, path, environ))


def configured_path(app: Celery) -> str | None:
    """Return the path that ``app`` is configured with, or the environment's."""
    path = app.conf.get("webhooks_config")
    return str(path) if path else os.environ.get(ENVIRONMENT_VARIABLE)


_read: WeakKeyDictionary[Celery, Config | ConfigError] = WeakKeyDictionary()
_lock = threading.Lock()


def config_of(app: Celery) -> Config:
    """Return the webhooks configuration of ``app``, read at the first call in a process.

    Raises:
        ConfigError: at every call when the file is faulty; a restart reads it again.
    """
    known = _read.get(app)
    if known is None:
        with _lock:
            known = _read.get(app)
            if known is None:
                known = _read[app] = _read_for(app)
    if isinstance(known, ConfigError):
        raise ConfigError(known.path, known.faults)
    return known


def _read_for(app: Celery) -> Config | ConfigError:
    try:
        config = read(configured_path(app))
    except ConfigError as error:
        return error
    if config.off:
        logger.warning("webhooks are off: %s", config.off)
    return config
