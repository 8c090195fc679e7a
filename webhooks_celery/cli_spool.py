"""``celery webhooks spool …``: what waits on this machine for the broker to come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .cli_context import app_of, plain_errors

if TYPE_CHECKING:
    from .spool import Spool


@click.group()
def spool() -> None:
    """Look at events that wait on disk because the broker was away; send them.

    The spool is the folder that the app's setting webhooks_spool names.
    """


@spool.command("list")
@click.pass_context
def list_spool(ctx: click.Context) -> None:
    """List what waits, the oldest first."""
    from datetime import datetime

    count = 0
    with plain_errors():
        for message, since in _spool(ctx).browse():
            count += 1
            event, hook = message.kwargs.get("event"), message.kwargs.get("hook", "every hook")
            click.echo(f"{message.id}  {datetime.fromtimestamp(since):%F %T}  {event}  {hook}")
    click.echo(f"{count} message{'' if count == 1 else 's'} waiting.", err=True)


@spool.command()
@click.pass_context
def flush(ctx: click.Context) -> None:
    """Send what waits now. Running workers on this machine do so by themselves."""
    from .emitter import flush_spool

    with plain_errors():
        _spool(ctx)
        count = flush_spool(app_of(ctx))
    click.echo(f"{count} message{'' if count == 1 else 's'} sent.")


def _spool(ctx: click.Context) -> Spool:
    from .emitter import installed_task

    found = installed_task(app_of(ctx)).spool
    if found is None:
        raise click.ClickException(
            "There is no spool: name a folder with the app's setting webhooks_spool."
        )
    return found
