"""`ksctl plan`: what the policies would do to the live book now."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from killswitch.cli import EXIT_FAILED, EXIT_PENDING
from killswitch.cli.options import IN_FILE, OUT_FILE, file_errors, page_output, policies, read_timeout, variant, verb
from killswitch.cli.terminal import print_answer, print_note
from killswitch.model.legible import STORE_OPTION, with_store

if TYPE_CHECKING:
    from killswitch.accounts.opening import LoadedPolicies
    from killswitch.model.store import Store
    from killswitch.operations.preview import Preview
    from killswitch.planning.operator.plan_file import SavedPlan


@verb("ksctl plan --policies policies --store ks.sqlite", "ksctl plan --policies policies --out trim.plan.json")
@policies(required=True)
@click.option("--store", "store_at", metavar="FILE", envvar="KSCTL_STORE", show_envvar=True,
              help="The store of the runner, read-only, for history, stages and cooldowns.")  # fmt: skip
@click.option("--snapshot", "recording", type=IN_FILE,
              help="Plan on the last line of this recording, with the lines before it as history.")  # fmt: skip
@click.option("--out", type=OUT_FILE, help="Save the plan in a new file, for `ksctl apply`.")
@variant
@read_timeout("30s")
@page_output
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 if a stage would fire.")
def plan(
    policies_at: tuple[Path, ...],
    store_at: str | None,
    recording: Path | None,
    out: Path | None,
    variant: str | None,
    read_timeout: float,
    output: str,
    detailed_exitcode: bool,
) -> int:
    """Show what the policies would do now. Changes nothing, anywhere.

    Exits 1 if an account cannot be read: the plan then shows what is known and names the unreadable accounts. Exits 1
    as well if a policy has more accounts or positions in its scopes than its `expect` states.

    --out saves the orders, cancels and locks of stages that would fire, with the positions and orders that the
    decisions are based on. Without any, no file is written.
    """
    from killswitch.cli.session import load_policies, opened_store
    from killswitch.operations.pages.plan import plan_page
    from killswitch.operations.preview import encode_preview, of_policies, plan_of

    if recording is not None and store_at is not None:
        raise click.UsageError("--snapshot does not combine with --store: a recording has its own history")
    if recording is not None and out is not None:
        raise click.UsageError(
            "--out does not combine with --snapshot: a plan is saved of live venues, not of a recording"
        )
    require_new_file(out)
    loaded = load_policies(policies_at, variant)
    if recording is not None:
        shown = _of_recording(loaded, recording)
    else:
        with nullcontext() if store_at is None else opened_store(store_at, read_only=True) as store:
            shown = _of_venues(loaded, store, read_timeout)
    print_answer(output, lambda: encode_preview(shown), lambda: plan_page(shown))
    if out is not None:
        save_plan(plan_of(shown, of_policies(shown)), out, store_at)
    if shown.unreadable or shown.exceeded:
        return EXIT_FAILED
    return EXIT_PENDING if detailed_exitcode and shown.pending else 0


def _of_recording(loaded: LoadedPolicies, recording: Path) -> Preview:
    from killswitch.lab.recording import read
    from killswitch.operations.preview import from_recording, preview

    interpreter, last, memory = from_recording(loaded.policies, read(recording))
    if last is None:
        raise click.ClickException(f"{recording}: contains no snapshot")
    return preview(loaded.policies, last, interpreter, memory, frozenset())


def _of_venues(loaded: LoadedPolicies, store: Store | None, read_timeout: float) -> Preview:
    from killswitch.accounts.opening import open_accounts, read_once
    from killswitch.model.snapshot import Snapshot
    from killswitch.operations.preview import closes_under_way, from_store, preview
    from killswitch.operations.status import runner_state
    from killswitch.runner import process
    from killswitch.runner.clock import SystemClock
    from killswitch.runner.status_blob import tick_time
    from killswitch.runner.tick_inputs import dated_heartbeats, own_orders_in

    accounts = open_accounts(loaded.accounts, live=True)
    account_snapshots = process.run(read_once(accounts, read_timeout))
    events = tuple(store.pending_events()) if store else ()
    now = tick_time(store, SystemClock())
    is_alive = store is not None and runner_state(store.lease(), datetime.now(UTC)).is_alive
    snapshot = Snapshot(
        now,
        account_snapshots,
        "killswitch.snapshot/v1",
        events=events,
        closings=closes_under_way(store),
        own_orders=None if store is None else own_orders_in(store, now, is_alive=is_alive),
        heartbeats={} if store is None else dated_heartbeats(store, now),
    )
    interpreter, memory = from_store(loaded.policies, store)
    armed = frozenset(name for name, account in accounts.items() if account.armed)
    return preview(loaded.policies, snapshot, interpreter, memory, armed)


def require_new_file(out: Path | None) -> None:
    """Refuse a file that already exists, before any account is read: an old plan must not pass for the new one."""
    if out is not None and out.exists():
        raise click.ClickException(f"{out} already exists: remove it, or name another file")


def save_plan(plan: SavedPlan | None, out: Path, store_at: str | None) -> None:
    """Write the plan, or report on stderr that there is none. `store_at`: the store of the command, if it has one."""
    if plan is None:
        print_note(f"nothing to apply: {out} was not written")
        return
    from killswitch.planning.operator.plan_file import encode_plan

    with file_errors(str(out)), out.open("xb") as file:
        file.write(encode_plan(plan))
    command = with_store(f"ksctl apply {out} {STORE_OPTION} --live", store_at or "")
    print_note(f"saved plan {plan.short} in {out}: `{command}` applies it")


def read_plan(path: Path) -> SavedPlan:
    """Read a saved plan; refuse a file that is not a plan or was altered."""
    from killswitch.planning.operator.plan_file import PlanFileError, decode_plan

    try:
        with file_errors(str(path)):
            return decode_plan(path.read_bytes())
    except PlanFileError as error:
        raise click.ClickException(f"{path}: {error}") from error
