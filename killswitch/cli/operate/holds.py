"""`ksctl halt` and `cancel`: stop what adds risk on a scope, and close nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from killswitch.cli import completion, options
from killswitch.cli.operate.parts import part_options
from killswitch.cli.operate.verbs import operator_options
from killswitch.cli.options import RECORD_TEXT

if TYPE_CHECKING:
    from killswitch.cli.operate.command_delivery import CommandSite
    from killswitch.model.decision import HoldCommand
    from killswitch.model.instant import LocalTime
    from killswitch.model.snapshot import Side
    from killswitch.signals.sessions import TradingSession

_scope = click.argument("scope", type=RECORD_TEXT, default="portfolio", shell_complete=completion.scopes)
_reason = click.option("--reason", type=RECORD_TEXT, required=True, help="The reason, for the record.")
_all_orders = click.option("--all-orders", is_flag=True,
                           help="Cancel stops and exits as well: positions may be left without a stop. --dry-run names "
                                "each of them.")  # fmt: skip
_dry_run = click.option("--dry-run", is_flag=True, help="Show every cancel and the lock without any change.")


@options.verb(
    "ksctl halt --reason 'strategy misbehaves' --store ks.sqlite",
    "ksctl halt account/main --side long --symbol BTC_USDT --reason 'seen' --store ks.sqlite --dry-run",
)
@_scope
@part_options("Halt")
@_reason
@_all_orders
@_dry_run
@operator_options
def halt(
    scope: str, side: Side | None, symbols: tuple[str, ...], length: float | None, end: str | None, reason: str,
    all_orders: bool, dry_run: bool, site: CommandSite, live: bool, author: str, wait: float, output: str,
) -> None:  # fmt: skip
    """Stop everything that adds risk on SCOPE, and close nothing.

    SCOPE is as for `ksctl lock`; left out, it is everything. It is locked (reduce_only), and the resting orders that
    could open or enlarge a position are cancelled, judged together per position: stops and exits stay, as far as they
    fit what is held. Without --for or --until a halt lasts until `ksctl unlock` or `ksctl reset` of SCOPE.

    A running runner processes the command at once; without one, this command takes the lease and ticks once, which
    needs --live, and the lock stays for the next runner.
    """
    from killswitch.cli.operate.parts import lasting, named_symbols

    more = {"lock": "reduce_only", "side": side, "symbols": named_symbols(scope, symbols), "all_orders": all_orders}
    _deliver(
        "halt", scope, site, author, reason, more, wait=wait, output=output, live=live, dry_run=dry_run,
        lasts=lasting(length, end, site),
    )  # fmt: skip


@options.verb("ksctl cancel strategy/grid --reason 'stale quotes' --store ks.sqlite --dry-run")
@_scope
@part_options("Cancel", timed=False)
@_reason
@_all_orders
@_dry_run
@operator_options
def cancel(
    scope: str, side: Side | None, symbols: tuple[str, ...], reason: str, all_orders: bool, dry_run: bool,
    site: CommandSite, live: bool, author: str, wait: float, output: str,
) -> None:  # fmt: skip
    """Cancel the resting orders on SCOPE that add risk, once. Nothing is locked, and nothing is closed.

    Which orders these are, and who carries it out, is as for `ksctl halt`. A bot may send the same orders again: halt
    to prevent that.
    """
    from killswitch.cli.operate.parts import named_symbols

    more = {"side": side, "symbols": named_symbols(scope, symbols), "all_orders": all_orders}
    _deliver("cancel", scope, site, author, reason, more, wait=wait, output=output, live=live, dry_run=dry_run)


def _deliver(
    kind: HoldCommand, scope: str, site: CommandSite, author: str, reason: str, more: Mapping[str, object], *,
    wait: float, output: str, live: bool, dry_run: bool, lasts: float | LocalTime | TradingSession | None = None,
) -> None:  # fmt: skip
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given

    request = CommandRequest(given(kind, scope, author, reason, **more), wait, output == "json", lasts=lasts)
    if dry_run:
        from killswitch.cli.operate.preview import preview_command

        preview_command(request, site, None)
        return
    deliver(request, site, live=live)
