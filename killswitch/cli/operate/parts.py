"""Options that operator commands share: a part of a scope, an end, and the decisions that a command ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from killswitch.cli import options
from killswitch.cli.options import RECORD_TEXT, WORD

if TYPE_CHECKING:
    from killswitch.cli.operate.command_delivery import CommandSite
    from killswitch.model.instant import LocalTime
    from killswitch.signals.sessions import TradingSession


def part_options(verb: str, *, timed: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that name a part of a scope, and, if `timed`, an end. `verb`: the command, for their help."""
    found = [
        click.option("--side", type=click.Choice(["long", "short"]),
                     help=f"{verb} only what opens or enlarges a position of this side. Default: both."),
        click.option("--symbol", "symbols", type=WORD, multiple=True,
                     help=f"{verb} only this symbol, as the venue writes it. May be given more than once. "
                          "Default: all."),
    ]  # fmt: skip
    if timed:
        found += [
            click.option("--for", "length", type=options.DURATION, help="How long. Default: until it is lifted."),
            click.option("--until", "end", type=RECORD_TEXT, metavar="TIME",
                         help="Until the next such time of the day, as in '08:00 Europe/Berlin', or until the next "
                              "open of a Session of the policies, by its name."),
        ]  # fmt: skip

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for each in reversed(found):
            command = each(command)
        return command

    return add


def id_option(command: Callable[..., None]) -> Callable[..., None]:
    """`--id` of the commands that loosen."""
    add = click.option("--id", "ids", type=RECORD_TEXT, multiple=True,
                       help="The decision that it ends, by its id or the beginning of it. May be given more than "
                            "once. Default: the only one there is; of several none, and they are listed.")  # fmt: skip
    return add(command)


def lasting(length: float | None, end: str | None, site: CommandSite) -> float | LocalTime | TradingSession | None:
    """How long a command lasts, by --for or --until; None without end. UsageError for both."""
    if length is not None and end is not None:
        raise click.UsageError("--for and --until exclude each other: both say when the lock ends")
    return length if end is None else lock_end(end, site)


def named_symbols(scope: str, symbols: tuple[str, ...]) -> tuple[str, ...] | None:
    """The symbols of --symbol, each once; None without any. UsageError next to a scope that is a symbol."""
    if symbols and scope.startswith("symbol/"):
        raise click.UsageError(f"{scope} is one symbol already: leave --symbol out, or name an account")
    return tuple(sorted(set(symbols))) or None


def lock_end(written: str, site: CommandSite) -> LocalTime | TradingSession:
    """The time of the day, or the session, at which a lock ends. UsageError for anything else."""
    from killswitch.policy.schema.part import MistakeError
    from killswitch.policy.schema.scalars import local_time

    if ":" in written:  # no name of a document has one
        try:
            return local_time(written)
        except MistakeError as error:
            raise click.UsageError(f"--until: {error}; {error.fix}") from error
    known = site.sessions()
    if written not in known:
        names = ", ".join(sorted(known)) or "none"
        raise click.UsageError(
            f"--until: `{written}` is neither a time of the day with its zone, such as '08:00 Europe/Berlin', nor a "
            f"Session of the policies. Known sessions: {names}"
        )
    return known[written]
