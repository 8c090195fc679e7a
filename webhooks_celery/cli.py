"""``celery webhooks …``.

Every ``celery`` command imports this module, so whatever is not needed to describe the commands
is imported inside them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from .cli_context import app_of, plain_errors
from .cli_dead import dead
from .cli_spool import spool
from .errors import EX_CONFIG

if TYPE_CHECKING:
    from celery import Celery

    from .matching import Hooks
    from .receiver import Received


@click.group()
def webhooks() -> None:
    """Send webhooks: check the file, emit events, try things out.

    The webhooks file is named by the environment variable IMMICH_WEBHOOKS_CONFIG
    or the app's setting webhooks_config. Without -A the package's own app is used,
    with the broker that CELERY_BROKER_URL names.
    """


webhooks.add_command(dead)
webhooks.add_command(spool)


@webhooks.command()
@click.argument("file", required=False)
@click.option("--broker", is_flag=True, help="Hold the hooks against the broker's limits, too.")
@click.pass_context
def check(ctx: click.Context, file: str | None, broker: bool) -> None:
    """Check the webhooks file and show its hooks.

    FILE: the file to check; by default the configured one.

    Exit status: 0 if it can be used, or if webhooks are off because no file is
    configured or the configured one does not exist; 78 if it is faulty, if FILE does
    not exist or if --broker finds a fault; 1 if the broker cannot be reached.
    """
    import os

    from .config import configured_path, read
    from .errors import ConfigError

    path = os.path.abspath(file) if file else configured_path(app_of(ctx))
    try:
        config = read(path)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(EX_CONFIG)
    if config.off and file:
        click.echo(config.off, err=True)
        sys.exit(EX_CONFIG)
    if config.off:
        click.echo(f"webhooks are off: {config.off}")
        return
    hooks = "1 hook" if len(config.hooks) == 1 else f"{len(config.hooks)} hooks"
    click.echo(f"{config.path} can be used: {hooks}.")
    if len(config.hooks):
        click.echo()
        _print_table(config.hooks)
    if broker:
        _check_broker(app_of(ctx), config.hooks)


def _check_broker(app: Celery, hooks: Hooks) -> None:
    """Print what does not go together and exit with 78, or say that all does."""
    from .broker import fit_redis, limits_of
    from .emitter import installed_task
    from .plan import problems

    with plain_errors(), installed_task(app).publisher.producer() as producer:
        _, _, place = producer.connection.as_uri().rpartition("://")  # without the password
        broker = f"{producer.connection.transport.driver_type}://{place}"
        fit_redis(app, hooks)
        found = list(problems(hooks, limits_of(app)))
    for problem in found:
        click.echo(problem, err=True)
    if found:
        sys.exit(EX_CONFIG)
    click.echo(f"\nThe timetables fit the broker, {broker}.")


def _print_table(hooks: Hooks) -> None:
    from .describe import describe_hook

    rows = [["HOOK", "EVENTS", "TO", "ATTEMPTS", "TIMETABLE", "DEADLINE"]]
    for hook in hooks:
        shown = describe_hook(hook)
        events = ", ".join(shown["events"]) + (" +server" if hook.server_events else "")
        name = hook.id if hook.enabled else f"{hook.id} (disabled)"
        rows.append(
            [
                name,
                events,
                f"{hook.method} {hook.origin}",
                str(hook.attempts),
                shown["timetable"],
                shown["deadline"],
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths))
        click.echo("  ".join(cells).rstrip())


@webhooks.command()
def schema() -> None:
    """Print the JSON Schema of the webhooks file, for editors."""
    from importlib.resources import files

    click.echo(files(__package__).joinpath("webhooks.schema.json").read_text("utf-8"), nl=False)


@webhooks.command("emit")
@click.argument("event")
@click.argument("payload", default="null")
@click.option("--server", is_flag=True, help="An event of an internal server process.")
@click.option("--event-id", help="Repeat safely: the same id gives the same delivery ids.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait for the outcome of each delivery; needs a result backend here and in the worker. "
    "Exit status 1 unless all are delivered.",
)
@click.pass_context
def emit_command(
    ctx: click.Context,
    event: str,
    payload: str,
    server: bool,
    event_id: str | None,
    wait: float | None,
) -> None:
    """Emit EVENT and print the delivery ids.

    PAYLOAD: JSON text, @FILE to read it from a file, or - for standard input; null by default.
    """
    from .config import config_of
    from .emitter import emit

    app = app_of(ctx)
    if wait is not None and _has_no_backend(app):
        raise click.UsageError(
            "--wait needs a result backend: set CELERY_RESULT_BACKEND (or the app's "
            "result_backend) here and for the worker."
        )
    with plain_errors():
        value = _read_payload(payload)
        ids = emit(event, value, server=server, event_id=event_id, app=app)
        off = bool(config_of(app).off)  # why, the log has said
    if not ids:
        click.echo(f"nothing queued: {'webhooks are off' if off else 'no hook matches'}", err=True)
    if wait is None:
        for delivery in ids:
            click.echo(delivery)
    elif not _print_outcomes(app, ids, wait):
        sys.exit(1)


def _read_payload(argument: str) -> Any:
    import json

    try:
        if argument == "-":
            text = sys.stdin.read()
        elif argument.startswith("@"):
            with open(argument[1:], encoding="utf-8") as file:
                text = file.read()
        else:
            text = argument
        return json.loads(text)
    except OSError as error:
        raise click.UsageError(f"{argument[1:]}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"The payload is not JSON: {error}.") from None


def _has_no_backend(app: Celery) -> bool:
    from celery.backends.base import DisabledBackend

    return isinstance(app.backend, DisabledBackend)


def _print_outcomes(app: Celery, ids: list[str], seconds: float) -> bool:
    """Wait for each delivery, print what became of it; return whether all were delivered."""
    from time import monotonic

    from celery.exceptions import TimeoutError as NotDone

    deadline = monotonic() + seconds
    good = True
    for delivery in ids:
        result = app.AsyncResult(delivery)
        try:
            value = result.get(timeout=max(deadline - monotonic(), 0.01), propagate=False)
        except NotDone:
            good, outcome = False, f"not finished after {seconds:g} s"
        else:
            if result.successful():
                outcome = f"delivered: HTTP {value['status']}, attempt {value['attempt']}"
            else:
                good, outcome = False, f"given up: {value}"
        click.echo(f"{delivery}  {outcome}")
    return good


@webhooks.command(short_help="Run an embedded Valkey server as broker.")
@click.option("--port", type=click.IntRange(1, 65535), default=6379, show_default=True)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=str),
    metavar="FOLDER",
    help="Keep the data here, safe from crashes. Default: in memory, gone at the end.",
)
def broker(port: int, data: str | None) -> None:
    """Run an embedded Valkey server as broker until Ctrl-C; needs the extra "embedded"."""
    from pathlib import Path

    from .embedded import embedded_broker

    with plain_errors(), embedded_broker(port, Path(data) if data else None) as url:
        click.echo(f"Broker running. Tell applications and workers: CELERY_BROKER_URL={url}")
        click.echo(f"Data: {data or 'in memory'}. Stop it with Ctrl-C.")
        _until_stopped()


@webhooks.command(short_help="Receive deliveries and print them.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option(
    "--status",
    type=click.IntRange(200, 599),
    default=204,
    show_default=True,
    help="HTTP status to answer with.",
)
@click.option(
    "--delay",
    type=click.FloatRange(min=0),
    default=0,
    show_default=True,
    metavar="SECONDS",
    help="Wait before answering.",
)
def listen(host: str, port: int, status: int, delay: float) -> None:
    """Receive deliveries and print them until Ctrl-C; values that may be secret are masked."""
    from .receiver import Receiver

    def answer(received: Received) -> int:
        _print_received(received)
        receiver.closing.wait(delay)
        return status

    try:
        receiver = Receiver(answer, host, port)
    except OSError as error:
        raise click.ClickException(f"Cannot listen on {host}:{port}: {error.strerror}.") from None
    with receiver:
        click.echo(f"Listening on {receiver.url}, answering {status}. Stop it with Ctrl-C.")
        _until_stopped()


def _print_received(received: Received) -> None:
    from datetime import datetime

    lines = [
        f"{datetime.now():%H:%M:%S}  {received.header('-event')}  {received.header('-delivery-id')}"
    ]
    lines += [f"  {name}: {value}" for name, value in received.shown_headers()]
    lines += [f"  {line}" for line in received.shown_body().splitlines()]
    click.echo("\n".join(lines) + "\n")


@webhooks.command(short_help="Watch deliveries, retries and giving up.")
def demo() -> None:
    """Watch deliveries, retries and giving up, with a real broker and worker, in seconds.

    Needs the extra "embedded" and nothing else. Exit status 0 only if all went as it should.
    """
    from .demo import run_demo

    _stop_on_sigterm()
    with plain_errors():
        good = run_demo(click.echo)
    sys.exit(0 if good else 1)


def _stop_on_sigterm() -> None:
    import signal

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def _until_stopped() -> None:
    """Return on Ctrl-C; leave on SIGTERM, so that everything is cleaned up."""
    import threading

    _stop_on_sigterm()
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        click.echo("Stopped.")
