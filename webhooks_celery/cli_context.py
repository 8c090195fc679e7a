"""What the commands share: the app to work with, and errors as messages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from .errors import EX_CONFIG, ConfigError, WebhooksError

if TYPE_CHECKING:
    from celery import Celery


def app_of(ctx: click.Context) -> Celery:
    """Return the app named by -A, or the package's own."""
    if ctx.find_root().params.get("app"):
        app: Celery = ctx.obj.app
    else:
        from .celery import app
    return app


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn the errors that a user can mend into a message; a faulty file also into status 78."""
    from kombu.exceptions import OperationalError

    try:
        yield
    except WebhooksError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EX_CONFIG if isinstance(error, ConfigError) else 1)
    except OperationalError as error:
        click.echo(f"Error: the broker cannot be reached: {error}", err=True)
        sys.exit(1)
