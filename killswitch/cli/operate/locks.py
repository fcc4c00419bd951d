"""`ksctl lock` and `unlock`: locks by hand, of a scope or of one side and some symbols of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from killswitch.cli import completion, options
from killswitch.cli.operate.parts import id_option, lasting, named_symbols, part_options
from killswitch.cli.operate.verbs import operator_options
from killswitch.cli.options import RECORD_TEXT, option

if TYPE_CHECKING:
    from killswitch.cli.operate.command_delivery import CommandSite
    from killswitch.model.snapshot import Side
    from killswitch.model.words import LockMode


@options.verb(
    "ksctl lock account/main --for 2h --reason 'bot misbehaves' --store ks.sqlite",
    "ksctl lock strategy/grid --side long --symbol BTC_USDT --until '08:00 Europe/Berlin' --reason 'seen' "
    "--store ks.sqlite",
)
@click.argument("scope", type=RECORD_TEXT, shell_complete=completion.scopes)
@option("--mode", type=click.Choice(["reduce_only", "all"]), default="reduce_only",
        help="What bots may not do: take on risk, or send any order.")  # fmt: skip
@part_options("Lock")
@click.option("--reason", type=RECORD_TEXT, required=True, help="The reason, for the record.")
@click.option("--dry-run", is_flag=True, help="Show what bots would see, and until when, without any change.")
@operator_options
def lock(
    scope: str, mode: LockMode, side: Side | None, symbols: tuple[str, ...], length: float | None, end: str | None,
    reason: str, dry_run: bool, site: CommandSite, live: bool, author: str, wait: float, output: str,
) -> None:  # fmt: skip
    """Lock trading on SCOPE, or on a part of it, for the bots that read its lock file.

    SCOPE is account/NAME, venue/NAME, portfolio, label/KEY=VALUE or strategy/NAME as a policy watches them, or
    symbol/NAME. The lock of a strategy that shares its accounts, or of a symbol, is in a file of its own, and locks no
    account's file. A bot that does not know the key `only` of the file sees all of the scope locked by a lock of one
    side or symbol.

    Nothing is closed or cancelled. Of several locks of one part of a scope, the strictest mode and the latest end
    apply; `ksctl unlock` lifts those of operators, `ksctl reset` all. A running runner writes the lock at its next
    tick, and renews it; without one, this command ticks once, which needs --live, and the lock stays for the next
    runner.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given

    lasts, named = lasting(length, end, site), named_symbols(scope, symbols)
    command = given("lock", scope, author, reason, lock=mode, side=side, symbols=named)
    request = CommandRequest(command, wait, output == "json", lasts=lasts)
    if dry_run:
        from killswitch.cli.operate.preview import preview_command

        preview_command(request, site, None)
        return
    deliver(request, site, live=live)


@options.verb("ksctl unlock account/main --reason 'bot repaired' --store ks.sqlite")
@click.argument("scope", type=RECORD_TEXT, shell_complete=completion.scopes)
@id_option
@click.option("--reason", type=RECORD_TEXT, required=True, help="The reason, for the record.")
@operator_options
def unlock(
    scope: str, site: CommandSite, ids: tuple[str, ...], reason: str, live: bool, author: str, wait: float, output: str
) -> None:
    """Lift the locks by hand on SCOPE: those of `ksctl lock`, of every side and symbol, and of manual closes that have
    ended.

    SCOPE is named as it was locked. Of several locks those of --id are lifted, so that a halt that somebody orders at
    the same moment stays. Latches, locks of stages and of other programs stay: `ksctl reset` ends those. A
    lock of a wider scope also stays: name that scope. A running runner processes the command at its next tick; without
    one, this command takes the lease and ticks once, which needs --live if a document says execution: live.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given

    command = given("unlock", scope, author, reason)
    deliver(CommandRequest(command, wait, output == "json", named=ids), site, live=live)
