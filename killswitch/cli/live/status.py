"""`ksctl status` and `ksctl history`: present state and past decisions, from the store alone."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_TROUBLE, options
from killswitch.cli.options import COUNT, option
from killswitch.cli.session import opened_store
from killswitch.cli.terminal import encode_record, is_wide, print_answer, print_page, print_text, terminal_width

if TYPE_CHECKING:
    from killswitch.operations.liveness_probe import Probe


@options.verb("ksctl status --store ks.sqlite", "ksctl status --store ks.sqlite --watch")
@options.store
@click.option(
    "--scope", help="Show one scope and its accounts, such as account/main. Problems of others are shown as well."
)
@click.option("--brief", is_flag=True, help="Show the answer and the problems only.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 4 on trouble: unless the answer is `all quiet`.")
@option("--notices", type=COUNT, default=5, help="Number of the newest notices to show.")
@click.option("--watch", is_flag=True, help="Follow closes until all are finished; exit 1 if a target is not reached.")
@click.option(
    "--probe",
    type=click.Choice(["live", "ready"]),
    help="Report in one line whether the runner ticks (live), or its last tick is recent (ready); exit 1 if not.",
)
@click.option(
    "--within",
    type=options.DURATION,
    help="With --probe: maximum age of the last tick. Default: 1m (live) or 20s (ready), or four intervals "
    "if that is longer.",
)
@options.page_output
def status(
    store_at: str, scope: str | None, brief: bool, detailed_exitcode: bool, notices: int, watch: bool,
    probe: Probe | None, within: float | None, output: str,
) -> int:  # fmt: skip
    """Show whether all is quiet, problems, closes, stages and locks. Changes nothing, and sends no request to a venue.

    The first line is the answer. On trouble it names what is wrong: a runner that does not tick, a stage that has
    fired, a lock, a close in progress, an account that cannot be read, a trigger that is true or unknown, a problem,
    an alert, a pending command.

    As JSON and with --output wide it also shows exposure and P&L by account, strategy and asset.

    The latch of a stage and the lifetime of a lock are independent, and both are shown. Data of a dead runner is
    shown with its date.

    --watch redraws every close each second on a terminal; otherwise, and as JSON, it prints a line per change.

    --probe is for supervisors that restart a hung process: it checks the runner alone, never venues.
    """
    if within is not None and probe is None:
        raise click.UsageError("--within limits the age of a tick for --probe: add --probe, or leave out --within")
    if output in ("markdown", "html") and (watch or probe is not None):
        raise click.UsageError(f"--output {output} is a page of the present state: leave out --watch and --probe")
    if (probe is not None or watch) and (scope or brief or detailed_exitcode):
        raise click.UsageError("--scope, --brief and --detailed-exitcode do not combine with --probe and --watch")
    if probe is not None:
        if watch:
            raise click.UsageError("--probe answers at once and --watch follows: use one of them")
        return _probed(store_at, probe, within, json=output == "json")
    if watch:
        from killswitch.cli.live.close_progress import follow

        with opened_store(store_at, read_only=True) as store:
            return follow(store, json=output == "json", terminal=terminal_width() is not None)
    from killswitch.operations.pages.status import status_page
    from killswitch.operations.status import encode_status, store_status
    from killswitch.operations.status_answer import of_scope, troubles
    from killswitch.runner.clock import SystemClock
    from killswitch.runner.status_blob import tick_time
    from killswitch.store.errors import StoreError
    from killswitch.store.sqlite import sign_of_life

    try:
        with opened_store(store_at, read_only=True) as store:
            sign = sign_of_life(store_at)
            store_state = store_status(store, datetime.now(UTC), notices, tick_time(store, SystemClock()), sign)
    except StoreError as error:
        lives = _living(store_at)
        if lives is None:
            raise
        raise click.ClickException(f"{error}. Its runner lives and goes on without it: {lives}") from error
    if scope is not None:
        store_state = of_scope(store_state, scope)
    wide = is_wide()
    print_answer(
        output, lambda: encode_status(store_state),
        lambda: status_page(store_state, store_at, is_brief=brief, is_wide=wide),
    )  # fmt: skip
    return EXIT_TROUBLE if detailed_exitcode and troubles(store_state) else 0


def _living(store_at: str) -> str | None:
    """The last tick of the process that answers for a store that cannot be read; None if none does."""
    from killswitch.operations.liveness_probe import live_by_sign
    from killswitch.store.errors import StoreError
    from killswitch.store.sqlite import sign_of_life

    with suppress(StoreError):
        found = live_by_sign(sign_of_life(store_at), None, datetime.now(UTC))
        return None if found is None else found.why
    return None


def _probed(store_at: str, probe: Probe, within: float | None, *, json: bool) -> int:
    """Print the verdict of a probe in one line. Imports little, because supervisors call it every few seconds."""
    from killswitch.operations.liveness_probe import ProbeResult, live_by_sign, probe_of
    from killswitch.runner.clock import SystemClock
    from killswitch.store.errors import StoreError
    from killswitch.store.sqlite import sign_of_life

    now, clock, result = datetime.now(UTC), SystemClock(), None
    if probe == "live":
        with suppress(StoreError):
            result = live_by_sign(sign_of_life(store_at), None, now, within, clock)
    if result is None:  # it does not answer: another version, or it hangs
        try:
            with opened_store(store_at, read_only=True) as store:
                result = probe_of(store, probe, now, within, clock)
        except StoreError as error:
            result = ProbeResult(False, str(error))
    if json:
        click.echo(encode_record({"probe": probe, "passed": result.passed, "why": result.why}))
    else:
        print_text(f"{'' if result.passed else 'not '}{probe}: {result.why}")
    return 0 if result.passed else 1


@options.verb("ksctl history --store ks.sqlite --limit 5")
@options.store
@option("--limit", type=click.IntRange(min=1), default=20, help="Number of the newest decisions to show.")
@options.page_output
def history(store_at: str, limit: int, output: str) -> None:
    """List past decisions and their results, newest first, and below them the notices of unexplained changes of equity,
    of flags, of pauses and of refused commands.

    With --output json, one object per line: the decision record and its result.
    """
    from killswitch.incident.record.results import newest_results
    from killswitch.model.decision import decision_record
    from killswitch.operations.pages.history import NOTICES_SEARCHED, history_page

    with opened_store(store_at, read_only=True) as store:
        found = newest_results(store, limit)
        notices = store.notices(NOTICES_SEARCHED)
    if output != "json":
        print_page(history_page(found, notices, limit), output)
        return
    for decision, result in found:
        click.echo(encode_record({"decision": decision_record(decision), "result": result}))
