"""`ksctl close` and `ksctl reset`: hands, taken by the runner at its next tick, or by one tick of our own."""

from __future__ import annotations

from pathlib import Path

import click

from killswitch.cli import options

_WAIT = click.option("--wait", type=options.DURATION, default="30s", show_default=True,
                     help="How long to wait for the runner to take it, and for a close to end.")  # fmt: skip
_AUTHOR = click.option("--author", type=options.WORDS, help="Who gives the order. Left out: the user of this session.")
_LIVE = click.option("--live", is_flag=True,
                     help="Where no runner lives: act, on accounts whose document says execution: live.")  # fmt: skip


@click.command()
@options.store
@click.option("--reason", type=options.WORDS, required=True, help="Why, for the record.")
@click.option("--scope", type=options.WORDS, help="account/NAME, venue/NAME or portfolio. Left out: everything.")
@click.option("--dry-run", is_flag=True, help="Show every order and cancel, and change nothing anywhere.")
@_LIVE
@_AUTHOR
@options.policies(required=False)
@options.read_timeout
@options.lock_dir
@options.lock_file
@_WAIT
@options.output
def close(
    store_at: str, reason: str, scope: str | None, dry_run: bool, live: bool, author: str | None,
    policies_at: tuple[Path, ...], read_timeout: float, lock_dir: Path | None, lock_file: Path | None,
    wait: float, output: str,
) -> None:  # fmt: skip
    """Close positions by hand.

    A living runner takes it at its next tick. Where none lives, this command takes the lease, ticks once and closes,
    which needs --live. --policies is then needed too, unless the last runner's are still where they were.
    """
    from killswitch.cli import hands_work as work
    from killswitch.cli.hands_text import Order

    order = Order("close", scope, author or work.this_user(), reason, wait, output == "json")
    place = work.Place(store_at, policies_at, read_timeout, lock_dir, lock_file)
    if dry_run:
        work.preview_close(order, place)
    else:
        work.give(order, place, live=live)


@click.command()
@click.argument("scope", type=options.WORDS)
@options.store
@click.option("--reason", type=options.WORDS, required=True, help="Why, for the record.")
@_LIVE
@_AUTHOR
@options.policies(required=False)
@options.read_timeout
@options.lock_dir
@options.lock_file
@_WAIT
@options.output
def reset(
    scope: str, store_at: str, reason: str, live: bool, author: str | None, policies_at: tuple[Path, ...],
    read_timeout: float, lock_dir: Path | None, lock_file: Path | None, wait: float, output: str,
) -> None:  # fmt: skip
    """Return SCOPE (as in account/main) to normal, by hand.

    A reset ends the latch of every policy on the scope and lifts the scope's lock, whoever wrote it, as soon as
    nothing is being closed for it; windows begin anew. SCOPE foreign is the lock that another program left. A living
    runner takes it at its next tick; where none lives, this command takes the lease and ticks once, which needs
    --live where a document says execution: live.
    """
    from killswitch.cli import hands_work as work
    from killswitch.cli.hands_text import Order

    order = Order("reset", scope, author or work.this_user(), reason, wait, output == "json")
    work.give(order, work.Place(store_at, policies_at, read_timeout, lock_dir, lock_file), live=live)
