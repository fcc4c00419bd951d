"""`ksctl close`, `apply` and `reset`: hands, taken by the runner at its next tick, or by one tick of our own."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from killswitch.cli import completion, options
from killswitch.cli.terminal import mention

if TYPE_CHECKING:
    from killswitch.cli.operate.command_delivery import Place


def _operator(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every operator command. Where it acts comes to it as `place`, and `author` is somebody."""

    @wraps(command)
    def run(
        store_at: str, policies_at: tuple[Path, ...], read_timeout: float, lock_dir: Path | None,
        lock_file: Path | None, author: str | None, **rest: Any,
    ) -> None:  # fmt: skip
        from killswitch.cli.operate.command_delivery import Place, this_user

        command(
            place=Place(store_at, policies_at, read_timeout, lock_dir, lock_file), author=author or this_user(), **rest
        )

    for option in reversed((
        options.store,
        click.option("--live", is_flag=True,
                     help="Where no runner lives: act, on accounts whose document says execution: live."),
        click.option("--author", type=options.WORDS, help="Who gives the order. Left out: the user of this session."),
        options.policies(required=False),
        options.read_timeout("15s"),
        options.lock_dir,
        options.lock_file,
        click.option("--wait", type=options.DURATION, default="30s", show_default=True,
                     help="How long to wait for the runner to take it, and beyond its pace for a close."),
        options.output,
    )):  # fmt: skip
        run = option(run)
    return run


@options.verb("ksctl close --scope account/main --reason system-failure --store ks.sqlite --dry-run")
@click.option("--reason", type=options.WORDS, required=True,
              help="Why: market, system-failure, exchange-breach, regulatory, counterparty, drill or operator, "
                   "and, after a colon, what for. It decides how the close is carried out.")  # fmt: skip
@click.option("--scope", type=options.WORDS, shell_complete=completion.scopes,
              help="What: account/NAME, venue/NAME or portfolio. Left out: everything.")  # fmt: skip
@click.option("--force", is_flag=True,
              help="At market at once, and on last known positions what cannot be read (spot waits).")  # fmt: skip
@click.option(
    "--give-up",
    "decision",
    type=options.WORDS,
    metavar="DECISION",
    help="End the close of this decision instead, named by its id or the beginning of it, on the accounts of --scope "
    "or on all: what is left stays open.",
)
@click.option("--dry-run", is_flag=True, help="Show every order and cancel, and change nothing anywhere.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path),
              help="With --dry-run: save what is shown as a plan, for `ksctl apply`, in a new file.")  # fmt: skip
@options.journal
@_operator
def close(
    place: Place, reason: str, scope: str | None, force: bool, decision: str | None, dry_run: bool,
    out: Path | None, live: bool, author: str, journal: str | None, wait: float, output: str,
) -> None:  # fmt: skip
    """Close positions by hand, or give a close up.

    A living runner takes it at its next tick. Where none lives, this command takes the lease, ticks and closes, which
    needs --live. --policies is then needed too, unless the last runner's are still where they were. What can be seen is
    closed at once; an account that cannot be read is closed on its first reading within ten minutes, by this command
    until --wait is over, and by a runner.

    --force sends market orders at once, without ladder or pace, and closes accounts that cannot be read on their last
    known positions where the venue keeps an order from opening anything (swap and future). Spot, margin and equity
    accounts are sold by what their reading shows, and wait for one. It arms nothing, and --live is still needed.

    A full close goes on for as long as the venue shows a position. --give-up ends it: nothing more is sent for the
    decision, and it ends as residual, with the author and the reason on record. Its stage stays latched, and its lock
    stands. Where no runner lives, the first tick of the next run takes it. With the id of a command that waits (hand-…)
    it ends the wait.

    --journal is the emergency way where the store's disk is full, read-only or gone, or the store is damaged.
    """
    from killswitch.cli.operate import command_delivery as work
    from killswitch.cli.operate.reasons import reason_of, too_narrow
    from killswitch.cli.operate.text import Order

    if decision is not None and (force or dry_run or out is not None):
        raise click.UsageError("--give-up sends nothing: it does not combine with --force, --dry-run or --out")
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
    why = reason_of(reason)
    if decision is not None:
        from killswitch.cli.operate.give_up import give_up

        if why.remark is not None:
            mention(why.remark)
        give_up(place.store_at, decision, scope, author, reason, wait, json=output == "json")
        return
    for remark in (why.remark, too_narrow(why.cause, scope)):
        if remark is not None:
            mention(remark)
    order = Order("close", scope, author, why.text, wait, output == "json", cause=why.cause, force=force)
    if dry_run:
        from killswitch.cli.operate.preview import preview_close

        preview_close(order, place, out)
    else:
        work.give(order, place, live=live, journal=journal)


@options.verb("ksctl apply trim.plan.json --store ks.sqlite")
@click.argument("plan_at", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--max-age", type=options.DURATION, default="10m", show_default=True,
              help="How old the plan may be when this command is given.")  # fmt: skip
@_operator
def apply(plan_at: Path, place: Place, max_age: float, live: bool, author: str, wait: float, output: str) -> None:
    """Carry out the saved plan in FILE, exactly, or refuse and list everything that has changed.

    FILE is from `ksctl plan --out` or `ksctl close --dry-run --out`. It is carried out once, and only while the
    policies, every position and order of its scopes and the venues' rules are as it saw them. A living runner takes it
    at its next tick; where none lives, this command takes the lease, ticks once and closes, which needs --live.
    """
    from killswitch.cli.live import plan_saving
    from killswitch.cli.operate import command_delivery as work
    from killswitch.cli.operate.text import Order

    plan = plan_saving.read(plan_at)
    age = (work.tick_time_of(place.store_at) - plan.as_of).total_seconds()
    if age > max_age:
        raise click.ClickException(
            f"{plan_at}: the plan is {age:.0f} s old, above --max-age {max_age:g}s: make a new plan, or raise --max-age"
        )
    order = Order("apply", plan.scope, author, f"plan {plan.short}", wait, output == "json", plan=plan)
    work.give(order, place, live=live)


@options.verb("ksctl reset account/main --reason 'seen, margin added' --store ks.sqlite")
@click.argument("scope", type=options.WORDS, shell_complete=completion.scopes)
@click.option("--reason", type=options.WORDS, required=True, help="Why, for the record.")
@_operator
def reset(scope: str, place: Place, reason: str, live: bool, author: str, wait: float, output: str) -> None:
    """Return SCOPE (as in account/main) to normal, by hand.

    A reset ends the latch of every policy on the scope and lifts the scope's lock, whoever wrote it, as soon as
    nothing is being closed for it; windows begin anew. SCOPE foreign is the lock that another program left. A living
    runner takes it at its next tick; where none lives, this command takes the lease and ticks once, which needs
    --live where a document says execution: live.
    """
    from killswitch.cli.operate import command_delivery as work
    from killswitch.cli.operate.text import Order

    order = Order("reset", scope, author, reason, wait, output == "json")
    work.give(order, place, live=live)
