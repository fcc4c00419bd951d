"""`ksctl close`, `apply`, `reset`, `restate`, `pause` and `resume`: operator commands.

The runner processes them, or one tick here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from killswitch.cli import completion, options
from killswitch.cli.operate.parts import id_option, part_options
from killswitch.cli.options import IN_FILE, OUT_FILE, RECORD_TEXT, option
from killswitch.cli.terminal import print_note, stdin_is_terminal

if TYPE_CHECKING:
    from decimal import Decimal

    from killswitch.cli.operate.command_delivery import CommandSite
    from killswitch.model.snapshot import Side
    from killswitch.model.words import ChangeCause


def operator_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every operator command, and pass `site` and the resolved `author`."""

    @wraps(command)
    def run(
        store_at: str, policies_at: tuple[Path, ...], read_timeout: float, lock_dir: Path | None,
        lock_file: Path | None, sentinel_at: Path | None, author: str | None, **options_of_verb: Any,
    ) -> None:  # fmt: skip
        from killswitch.cli.operate.command_delivery import CommandSite, this_user

        site = CommandSite(store_at, policies_at, read_timeout, lock_dir, lock_file, sentinel_at)
        command(site=site, author=author or this_user(), **options_of_verb)

    for each in reversed((
        options.store,
        click.option("--live", is_flag=True,
                     help="Without a running runner: act on accounts whose document says execution: live."),
        click.option("--author", type=RECORD_TEXT, help="Name of the operator. Default: the user of this session."),
        options.policies(required=False),
        options.read_timeout("15s"),
        options.lock_dir,
        options.lock_file,
        options.sentinel,
        option("--wait", type=options.DURATION, default="30s",
               help="How long to wait for the runner, and, after the pace of a close, for its end."),
        options.output,
    )):  # fmt: skip
        run = each(run)
    return run


def _require_combination(
    decision: str | None, *, force: bool, dry_run: bool, out: Path | None, journal: str | None, live: bool,
    is_part: bool,
) -> None:  # fmt: skip
    """Refuse options of `close` that exclude or require each other."""
    if decision is not None and (force or dry_run or out is not None):
        raise click.UsageError("--give-up sends nothing: it does not combine with --force, --dry-run or --out")
    if is_part and (out is not None or decision is not None):
        raise click.UsageError("--side, --symbol and --to-leverage close a part: they do not combine with --out or "
                               "--give-up")  # fmt: skip
    if journal is not None and (decision is not None or dry_run):
        raise click.UsageError("--journal does not combine with --give-up or --dry-run")
    if journal is not None and not live:
        raise click.UsageError("--journal needs --live: the command executes the close itself")
    if out is not None and not dry_run:
        raise click.UsageError("--out saves what --dry-run shows: add --dry-run")
    if out is not None and force:
        raise click.UsageError(
            "--out saves positions that were read, and --force closes accounts that cannot be read: use one of them"
        )


@options.verb("ksctl close --scope account/main --reason system-failure --store ks.sqlite --dry-run")
@click.option("--reason", type=RECORD_TEXT, required=True,
              help="Why: market, system-failure, exchange-breach, regulatory, counterparty, dead-man, drill or "
                   "operator, optionally with a text after a colon. It decides how the close is executed.")  # fmt: skip
@click.option("--scope", type=RECORD_TEXT, shell_complete=completion.scopes,
              help="account/NAME, venue/NAME, label/KEY=VALUE, strategy/NAME, symbol/NAME or portfolio. "
                   "Default: portfolio.")  # fmt: skip
@part_options("Close", timed=False)
@click.option("--to-leverage", "leverage", type=options.NUMBER, metavar="X",
              help="Close only as much as brings the gross of the scope to X times its equity, the worst position "
                   "first. Default: everything.")  # fmt: skip
@click.option("--force", is_flag=True,
              help="Close at market at once; unreadable accounts by last known positions (spot waits).")  # fmt: skip
@click.option(
    "--give-up",
    "decision",
    type=RECORD_TEXT,
    metavar="DECISION",
    help="End the close of this decision instead, by its id or the beginning of it, on the accounts of --scope "
    "or on all: remaining positions stay open.",
)
@click.option(
    "--no-lock",
    is_flag=True,
    help="Do not lock the scope: bots may open positions again while the close runs and after it.",
)
@click.option(
    "--yes",
    is_flag=True,
    help="Do not ask before closing the portfolio where --scope is missing; only a terminal is asked.",
)
@click.option("--dry-run", is_flag=True, help="Show every order, cancel and lock without any change.")
@click.option("--out", type=OUT_FILE, help="With --dry-run: save the plan in a new file, for `ksctl apply`.")
@options.journal
@operator_options
def close(
    site: CommandSite, reason: str, scope: str | None, side: Side | None, symbols: tuple[str, ...],
    leverage: Decimal | None, force: bool, decision: str | None, no_lock: bool, yes: bool, dry_run: bool,
    out: Path | None, live: bool, author: str, journal: str | None, wait: float, output: str,
) -> None:  # fmt: skip
    """Close positions by an operator command, or give up a close.

    A running runner processes the command at its next tick. Without one, this command takes the lease, ticks and
    closes, which needs --live, and --policies unless the policy files of the last runner are still in place. Readable
    accounts are closed at once; an unreadable account is closed at its first snapshot within ten minutes, by this
    command until --wait ends, and by a runner.

    --force sends market orders at once, without ladder or pace, and closes unreadable accounts by their last known
    positions if the venue prevents orders from opening a position (swap and future). Spot, margin and equity accounts
    wait for a snapshot.

    The scope is locked before the first order: bots may then only reduce, until `ksctl unlock SCOPE` or `ksctl reset
    SCOPE`. A lock folder that does not answer delays the close by a tenth of a second at most. Without --scope, a
    terminal shows what will be closed and asks once.

    A full close continues while the venue shows a position. --give-up ends it: no further order is sent for the
    decision, which ends as residual. Its stage stays latched, and its lock stays. Without a runner, the first tick of
    the next run processes it. With the id of a pending command (hand-…) it ends the wait.

    --journal is for emergencies: the disk of the store is full, read-only or gone, or the store is damaged.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given
    from killswitch.cli.operate.parts import named_symbols
    from killswitch.cli.operate.reasons import reason_of, scope_warning

    is_part = side is not None or bool(symbols) or leverage is not None
    _require_combination(decision, force=force, dry_run=dry_run, out=out, journal=journal, live=live, is_part=is_part)
    why = reason_of(reason)
    if decision is not None:
        from killswitch.cli.operate.give_up import give_up

        if why.remark is not None:
            print_note(why.remark)
        give_up(site.store_at, decision, scope, author, reason, wait, json=output == "json")
        return
    for remark in filter(None, (why.remark, scope_warning(why.cause, scope))):
        print_note(remark)
    lock = None if no_lock else "reduce_only"
    command = given(
        "close", scope, author, why.text, cause=why.cause, force=force, lock=lock, side=side,
        symbols=named_symbols(scope or "", symbols), leverage=leverage,
    )  # fmt: skip
    request = CommandRequest(command, wait, output == "json")
    if dry_run:
        from killswitch.cli.operate.preview import preview_command

        preview_command(request, site, out)
        return
    confirm = None
    if scope is None and not is_part and not yes and stdin_is_terminal():
        from killswitch.cli.operate.preview import confirm_portfolio

        confirm = partial(confirm_portfolio, request, site)
    deliver(request, site, live=live, journal=journal, confirm=confirm)


@options.verb("ksctl apply trim.plan.json --store ks.sqlite")
@click.argument("plan_at", metavar="FILE", type=IN_FILE)
@option("--max-age", type=options.DURATION, default="10m", help="Maximum age of the plan.")
@operator_options
def apply(plan_at: Path, site: CommandSite, max_age: float, live: bool, author: str, wait: float, output: str) -> None:
    """Apply the saved plan in FILE exactly, or refuse it and list every change.

    FILE comes from `ksctl plan --out` or `ksctl close --dry-run --out`. It is applied once, and only while the
    policies, all positions and orders of its scopes, and the rules of the venues are unchanged. A running runner
    processes it at its next tick; without one, this command takes the lease, ticks once and closes, which needs --live.
    """
    from killswitch.cli.live.plan import read_plan
    from killswitch.cli.operate.command_delivery import deliver, tick_time_on
    from killswitch.cli.operate.command_output import CommandRequest, given

    plan = read_plan(plan_at)
    age = (tick_time_on(site.store_at) - plan.as_of).total_seconds()
    if age > max_age:
        raise click.ClickException(
            f"{plan_at}: the plan is {age:.0f} s old, above --max-age {max_age:g}s: make a new plan, or raise --max-age"
        )
    command = given("apply", plan.scope, author, f"plan {plan.short}")
    deliver(CommandRequest(command, wait, output == "json", plan), site, live=live)


@options.verb("ksctl reset account/main --reason 'seen, margin added' --store ks.sqlite")
@click.argument("scope", type=RECORD_TEXT, shell_complete=completion.scopes)
@id_option
@click.option("--reason", type=RECORD_TEXT, required=True, help="The reason, for the record.")
@click.option("--dry-run", is_flag=True, help="Show what it ends, and what follows, without any change.")
@operator_options
def reset(
    scope: str, site: CommandSite, ids: tuple[str, ...], reason: str, dry_run: bool, live: bool, author: str,
    wait: float, output: str,
) -> None:  # fmt: skip
    """Return SCOPE (such as account/main) to normal, and accept the loss.

    A reset ends the latch of every policy on the scope and lifts its lock, whichever program wrote it, once no close is
    in progress for it; windows restart, so that the loss is accepted. Of several things that hold the scope those
    of --id end. SCOPE foreign is the lock of another program. A running runner processes the
    command at its next tick; without one, this command takes the lease and ticks once, which needs --live if a document
    says execution: live.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given

    request = CommandRequest(given("reset", scope, author, reason), wait, output == "json", named=ids)
    if dry_run:
        from killswitch.cli.operate.preview import preview_reset

        preview_reset(request, site)
        return
    deliver(request, site, live=live)


@options.verb("ksctl restate change-0b5e3a91c2 --as flow --reason 'payout to the bank' --store ks.sqlite")
@click.argument("change", type=RECORD_TEXT)
@click.option("--as", "restated_as", type=click.Choice(["loss", "flow"]), required=True,
              help="What it was: profit or loss, or money that came or went.")  # fmt: skip
@click.option("--reason", type=RECORD_TEXT, required=True, help="The reason, for the record.")
@click.option("--scope", type=RECORD_TEXT, shell_complete=completion.scopes,
              help="Restate it for this scope only. Default: every scope that watches its account.")  # fmt: skip
@operator_options
def restate(
    change: str, restated_as: ChangeCause, scope: str | None, site: CommandSite, reason: str, live: bool, author: str,
    wait: float, output: str,
) -> None:  # fmt: skip
    """Determine what the unexplained CHANGE of equity was, by its id in a notice or in `ksctl status`.

    As a loss, it counts as profit or loss, and the triggers decide on it in the tick that processes the command. As a
    flow, units are issued as for a transfer: the drawdown follows, and no latch and no lock is lifted. What an operator
    determined holds against every later ledger row; only another restatement reverses it. A running runner processes
    the command at its next tick; without one, this command takes the lease and ticks once, which needs --live if a
    document says execution: live.
    """
    from killswitch.cli.operate.command_delivery import deliver
    from killswitch.cli.operate.command_output import CommandRequest, given

    command = given("restate", scope, author, reason, change=change, restated_as=restated_as)
    deliver(CommandRequest(command, wait, output == "json"), site, live=live)
