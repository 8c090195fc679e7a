"""``celery webhooks dead …``: look at dead letters, replay or discard them, move them around."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .cli_context import app_of, plain_errors

if TYPE_CHECKING:
    from .dead_letters import DeadLetters
    from .model import DeadLetter

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def dead() -> None:
    """Look at deliveries that were given up; replay or discard them."""


def _since(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Return a moment in the format of a letter's ``parked``."""
    from .model import timestamp

    if value is None:
        return None
    ago = re.fullmatch(r"([0-9]+)([smhd])", value)
    try:
        if ago:
            unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[ago[2]]
            return timestamp(datetime.now(timezone.utc) - timedelta(**{unit: int(ago[1])}))
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
        return timestamp(moment)  # without a zone: the local one
    except (ValueError, OverflowError):
        raise click.BadParameter("write 30m, 12h, 7d or 2025-11-20T12:00:00Z") from None


def _filters(command: _Command) -> _Command:
    """Add the options that choose letters."""
    for option in (
        click.option("--since", callback=_since, help="Parked since: 30m, 12h, 7d or a date."),
        click.option("--event", help="Only this event."),
        click.option("--hook", help="Only this hook."),
    ):
        command = option(command)
    return command


def _chosen(
    hook: str | None, event: str | None, since: str | None, ids: Iterable[str] = ()
) -> Callable[[DeadLetter], bool]:
    wanted = frozenset(ids)

    def chosen(letter: DeadLetter) -> bool:
        return (
            (not wanted or letter.delivery in wanted)
            and (hook is None or letter.hook == hook)
            and (event is None or letter.event == event)
            and (since is None or letter.parked >= since)
        )

    return chosen


@dead.command("list")
@_filters
@click.option("--limit", type=click.IntRange(min=1), help="At most so many, the oldest first.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def list_letters(
    ctx: click.Context,
    hook: str | None,
    event: str | None,
    since: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List dead letters, the oldest first; takes none away."""
    from itertools import islice

    with _letters(ctx) as letters:
        found = islice(filter(_chosen(hook, event, since), letters.browse()), limit)
        count = 0
        for count, letter in enumerate(found, start=1):  # noqa: B007 - the last one is the count
            click.echo(_json(letter) if as_json else _line(letter))
    if not as_json:
        click.echo(_count(count, "listed"), err=True)


def _line(letter: DeadLetter) -> str:
    return (
        f"{letter.delivery}  {letter.parked}  {letter.hook}  {letter.event}  "
        f"attempts: {letter.attempts}  {letter.reason}"
    )


def _json(letter: DeadLetter) -> str:
    return json.dumps(asdict(letter))  # ASCII, whatever the terminal's or file's encoding is


def _count(count: int, done: str) -> str:
    return f"{count} dead letter{'' if count == 1 else 's'} {done}."


@dead.command()
@click.argument("delivery", metavar="ID")
@click.pass_context
def show(ctx: click.Context, delivery: str) -> None:
    """Show one dead letter with its payload."""
    with _letters(ctx) as letters:
        letter = next((one for one in letters.browse() if one.delivery == delivery), None)
    if letter is None:
        raise click.ClickException(f"There is no dead letter {delivery}.")
    for name, value in asdict(letter).items():
        if name != "payload":
            click.echo(f"{name + ':':<11}{'-' if value is None else value}")
    click.echo("payload:")
    try:
        click.echo(json.dumps(json.loads(letter.payload), indent=2, ensure_ascii=False))
    except ValueError:  # of a message that this package did not write
        click.echo(letter.payload)


@dead.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_filters
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.pass_context
def replay(
    ctx: click.Context,
    ids: tuple[str, ...],
    hook: str | None,
    event: str | None,
    since: str | None,
    everything: bool,
) -> None:
    """Queue deliveries again, with the same ids and a fresh count of attempts.

    Can be interrupted and repeated: a letter is removed only after its delivery is queued.
    """
    from .emitter import replay as queue_again

    _require_choice(ids, hook, event, since, everything)
    app = app_of(ctx)
    with _letters(ctx) as letters:
        chosen = _chosen(hook, event, since, ids)
        taken = letters.take(chosen, lambda letter: queue_again(app, letter))
        _report(taken, ids, "replayed")


@dead.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_filters
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def discard(
    ctx: click.Context,
    ids: tuple[str, ...],
    hook: str | None,
    event: str | None,
    since: str | None,
    everything: bool,
    yes: bool,
) -> None:
    """Remove dead letters for good; asks first."""
    _require_choice(ids, hook, event, since, everything)
    if not yes:
        click.confirm("Discard them for good?", abort=True, err=True)
    with _letters(ctx) as letters:
        taken = letters.take(_chosen(hook, event, since, ids), lambda letter: None)
        _report(taken, ids, "discarded")


def _require_choice(ids: tuple[str, ...], *filters: object) -> None:
    if not ids and not any(filters):
        raise click.UsageError("Say which: ids, --hook, --event, --since or --all.")


def _report(taken: Iterator[DeadLetter], ids: tuple[str, ...], done: str) -> None:
    """Print each letter as it is dealt with, then the count; exit with 1 if an id is missing."""
    missing = set(ids)
    count = 0
    try:
        for letter in taken:
            count += 1
            missing.discard(letter.delivery)
            click.echo(f"{letter.delivery}  {letter.hook}  {letter.event}")
    finally:
        click.echo(_count(count, done), err=True)
    for delivery in sorted(missing):
        click.echo(f"There is no such dead letter: {delivery}", err=True)
    if missing:
        sys.exit(1)


@dead.command("export")
@_filters
@click.pass_context
def export_letters(
    ctx: click.Context, hook: str | None, event: str | None, since: str | None
) -> None:
    """Print dead letters as JSON lines; takes none away."""
    with _letters(ctx) as letters:
        for letter in filter(_chosen(hook, event, since), letters.browse()):
            click.echo(_json(letter))


@dead.command("import")
@click.argument("file", type=click.File(encoding="utf-8"), default="-")
@click.pass_context
def import_letters(ctx: click.Context, file: Iterable[str]) -> None:
    """Add dead letters from the JSON lines of FILE or standard input; if one is faulty, none."""
    try:
        found = [_read(line, number) for number, line in enumerate(file, start=1) if line.strip()]
    except UnicodeDecodeError as error:
        raise click.ClickException(f"The file is not UTF-8: {error}.") from None
    count = 0
    with _letters(ctx) as letters:
        try:
            for letter in found:
                letters.park(letter)
                count += 1
        finally:
            click.echo(_count(count, "imported"), err=True)
            if count < len(found):
                click.echo(f"Import the others again, from {found[count].delivery} on.", err=True)


_KINDS = {"attempts": (int,), "status": (int, type(None)), "seen": (str, type(None))}


def _read(line: str, number: int) -> DeadLetter:
    from .model import DeadLetter

    try:
        value = json.loads(line)
        letter = DeadLetter(**value)
        for field in fields(letter):
            kinds = _KINDS.get(field.name, (str,))
            if not isinstance(getattr(letter, field.name), kinds):
                raise TypeError(f"{field.name} has the wrong type")
    except (ValueError, TypeError) as error:
        raise click.ClickException(
            f"Line {number} is not an exported dead letter: {error}."
        ) from None
    return letter


@contextmanager
def _letters(ctx: click.Context) -> Iterator[DeadLetters]:
    """Give access to the app's dead letters; what goes wrong becomes a message."""
    from .emitter import installed_task

    with plain_errors():
        task = installed_task(app_of(ctx))
        broker = task.app.connection_for_write()
        try:
            yield task.dead_letters
        except BrokenPipeError:  # of whoever read our output
            raise
        except (*broker.connection_errors, *broker.channel_errors) as error:
            click.echo(f"Error: the broker: {type(error).__name__}: {error}", err=True)
            sys.exit(1)
