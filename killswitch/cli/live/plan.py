"""`ksctl plan`: what the policies would do to the live book now; `ksctl show`: a saved plan, as it is in its file."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from killswitch.cli import EXIT_FAILED, EXIT_PENDING
from killswitch.cli.options import (
    DURATION,
    IN_FILE,
    OUT_FILE,
    file_errors,
    option,
    page_output,
    policies,
    read_timeout,
    variant,
    verb,
)
from killswitch.cli.terminal import encode_record, print_answer, print_note, print_page, print_screen, terminal_width
from killswitch.model.legible import STORE_OPTION, with_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from killswitch.accounts.opening import LoadedPolicies
    from killswitch.model.store import Store
    from killswitch.operations.plan_comparison import AgainstSet, OtherSet
    from killswitch.operations.preview import Preview
    from killswitch.planning.operator.plan_file import SavedPlan
    from killswitch.render.document import Page


@verb(
    "ksctl plan --policies policies --store ks.sqlite",
    "ksctl plan --policies policies --out trim.plan.json",
    "ksctl plan --policies policies --store ks.sqlite --against deployed",
)
@policies(required=True)
@click.option("--store", "store_at", metavar="FILE", envvar="KSCTL_STORE", show_envvar=True,
              help="The store of the runner, read-only, for history, stages and cooldowns.")  # fmt: skip
@click.option("--snapshot", "recording", type=IN_FILE,
              help="Plan on the last line of this recording, with the lines before it as history.")  # fmt: skip
@click.option("--against", metavar="DIR|deployed",
              help="Show next to it what another policy set decides on the same book: that of a folder or file, or the "
              "one in force on --store.")  # fmt: skip
@click.option("--watch", is_flag=True, help="Read the venues again after each --interval, until Ctrl-C.")
@option("--interval", type=DURATION, default="5s", help="With --watch: time between two pages, at least 1s.")
@click.option("--html", "html_at", type=OUT_FILE, help="Write the page as HTML to this file as well.")
@click.option("--out", type=OUT_FILE, help="Save the plan in a new file, for `ksctl apply`.")
@variant
@read_timeout("30s")
@page_output
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 if a stage would fire.")
def plan(
    policies_at: tuple[Path, ...],
    store_at: str | None,
    recording: Path | None,
    against: str | None,
    watch: bool,
    interval: float,
    html_at: Path | None,
    out: Path | None,
    variant: str | None,
    read_timeout: float,
    output: str,
    detailed_exitcode: bool,
) -> int:
    """Show what the policies would do now. Changes nothing, anywhere.

    The plan shows every position with its loss and its distance to liquidation, every trigger with its headroom in per
    cent and in money, and what each level would sell if it fired now: its orders, their expected price and cost, and
    what stays net. The headroom in money is a loss of equity while sizes, notionals and margins stay as they are.

    Exits 1 if an account cannot be read: the plan then shows what is known and names the unreadable accounts. Exits 1
    as well if a policy has more accounts or positions in its scopes than its `expect` states.

    --against shows where the decisions of both sets and their levels differ, and, with --store, what a reload of the
    policies does to what is in force.

    --watch redraws a terminal within its height; in a pipe it prints one page (or one line of JSON) for each interval.
    Without --store each page knows one snapshot only.

    --out saves the orders, cancels and locks of stages that would fire, with the positions and orders that the
    decisions are based on. Without any, no file is written.
    """
    from killswitch.cli.session import load_policies, opened_store
    from killswitch.operations.preview import of_policies, plan_of

    _require_combination(store_at, recording, against, out, html_at, output, interval, watch=watch)
    require_new_file(out)
    loaded = load_policies(policies_at, variant)

    def read() -> Shown:
        if recording is not None:
            return _of_recording(loaded, _other_set(against, None, variant), recording)
        with nullcontext() if store_at is None else opened_store(store_at, read_only=True) as store:
            return _of_venues(loaded, _other_set(against, store, variant), store, read_timeout, store_at)

    if watch:
        return _watched(read, output, interval)
    shown, against_shown = read()
    page = _page(shown, against_shown)
    print_answer(output, lambda: encode_preview_against(shown, against_shown), lambda: page)
    if html_at is not None:
        _write_html(html_at, page)
    if out is not None:
        save_plan(plan_of(shown, of_policies(shown)), out, store_at)
    if shown.unreadable or shown.exceeded:
        return EXIT_FAILED
    return EXIT_PENDING if detailed_exitcode and shown.pending else 0


def _require_combination(
    store_at: str | None, recording: Path | None, against: str | None, out: Path | None, html_at: Path | None,
    output: str, interval: float, *, watch: bool,
) -> None:  # fmt: skip
    """Refuse options that exclude or require each other."""
    if recording is not None and store_at is not None:
        raise click.UsageError("--snapshot does not combine with --store: a recording has its own history")
    if recording is not None and out is not None:
        raise click.UsageError(
            "--out does not combine with --snapshot: a plan is saved of live venues, not of a recording"
        )
    if against == DEPLOYED and store_at is None:
        raise click.UsageError("--against deployed is the set in force of a runner: name its store with --store")
    if not watch:
        return
    if recording is not None or out is not None or html_at is not None:
        raise click.UsageError("--watch follows live venues: leave out --snapshot, --out and --html")
    if output in ("markdown", "html"):
        raise click.UsageError(f"--output {output} is one page: leave out --watch")
    if interval < MIN_INTERVAL:
        raise click.UsageError(f"--interval is at least {MIN_INTERVAL:g}s: every page reads all venues")


DEPLOYED = "deployed"
MIN_INTERVAL = 1.0

Shown = tuple["Preview", "AgainstSet | None"]
"""The preview of the policies, and that of the set that they are compared with."""


def _other_set(against: str | None, store: Store | None, variant: str | None) -> OtherSet | None:
    """The set that the policies are compared with; ClickException if there is none or it does not compile."""
    if against is None:
        return None
    from killswitch.accounts.opening import PolicyProblemsError
    from killswitch.cli.session import load_policies
    from killswitch.operations.plan_comparison import NoDeployedSetError, OtherSet, deployed_set

    if against == DEPLOYED and store is not None:
        try:
            return deployed_set(store)
        except (NoDeployedSetError, PolicyProblemsError) as error:
            raise click.ClickException(f"--against deployed: {error}") from error
    if not Path(against).exists():
        raise click.UsageError(f"--against {against}: there is no such folder or file; or write `deployed`")
    return OtherSet(against, load_policies((Path(against),), variant).policies)


def _page(shown: Preview, against: AgainstSet | None) -> Page:
    if against is None:
        from killswitch.operations.pages.plan import plan_page

        return plan_page(shown)
    from killswitch.operations.pages.plan_comparison import comparison_page

    return comparison_page(shown, against)


def _write_html(html_at: Path, page: Page) -> None:
    from killswitch.render.html import html

    with file_errors(f"cannot write {html_at}"):
        html_at.write_text(html(page) + "\n", encoding="utf-8")
    print_note(f"wrote {html_at}")


def _watched(read: Callable[[], Shown], output: str, interval: float) -> int:
    """Print a page for each interval until Ctrl-C, which is its normal end."""
    try:
        while True:
            began = time.monotonic()
            shown, against = read()
            width = terminal_width()
            if output == "json":
                click.echo(encode_preview_against(shown, against))
            elif width is None:
                print_page(_page(shown, against))
                click.echo()
            else:
                print_screen(_with_result_first(_page(shown, against)))
            sys.stdout.flush()
            time.sleep(max(0.0, interval - (time.monotonic() - began)))
    except KeyboardInterrupt:
        print_note("stopped watching; nothing was changed")
        return 0


def _with_result_first(page: Page) -> Page:
    """The page for a screen that may be too small for all of it: the result, which is its last section, comes first."""
    from msgspec.structs import replace

    *sections, last = page.sections
    return replace(page, summary=tuple(part for part in last.parts if isinstance(part, str)), sections=tuple(sections))


def encode_preview_against(shown: Preview, against: AgainstSet | None) -> bytes:
    """The preview as JSON, with the comparison if there is one."""
    from killswitch.operations.preview import encode_preview

    if against is None:
        return encode_preview(shown)
    from killswitch.operations.plan_comparison import comparison_record

    return encode_preview(shown, comparison_record(shown, against))


def _of_recording(loaded: LoadedPolicies, other: OtherSet | None, recording: Path) -> Shown:
    from killswitch.lab.recording import read
    from killswitch.operations.preview import from_recording, preview

    found = []
    for policy_set in (loaded.policies, *(() if other is None else (other.policies,))):
        interpreter, last, memory = from_recording(policy_set, read(recording))
        if last is None:
            raise click.ClickException(f"{recording}: contains no snapshot")
        found.append(preview(policy_set, last, interpreter, memory, frozenset()))
    if other is None:
        return found[0], None
    from killswitch.operations.plan_comparison import AgainstSet

    return found[0], AgainstSet(other.name, found[1])


def _of_venues(
    loaded: LoadedPolicies, other: OtherSet | None, store: Store | None, read_timeout: float, store_at: str | None
) -> Shown:
    from msgspec.structs import replace

    from killswitch.accounts.opening import open_accounts, read_once
    from killswitch.model.snapshot import Snapshot
    from killswitch.operations.gate_answers import gate_answers, locks_of_run
    from killswitch.operations.lifting import manual_holds
    from killswitch.operations.preview import closes_under_way, from_store, preview
    from killswitch.operations.status import runner_state
    from killswitch.runner import process
    from killswitch.runner.clock import SystemClock
    from killswitch.runner.status_blob import tick_time
    from killswitch.runner.tick_inputs import dated_heartbeats, own_orders_in
    from killswitch.store.received import received_at

    accounts = open_accounts(loaded.accounts, live=True)
    account_snapshots = process.run(read_once(accounts, read_timeout))
    events = tuple(store.pending_events()) if store else ()
    now = tick_time(store, SystemClock())
    received = received_at(store_at, now)
    is_alive = store is not None and runner_state(store.lease(), datetime.now(UTC)).is_alive
    snapshot = Snapshot(
        now,
        account_snapshots,
        "killswitch.snapshot/v1",
        events=events,
        closings=closes_under_way(store),
        own_orders=None if store is None else own_orders_in(store, now, is_alive=is_alive),
        heartbeats={} if store is None else dated_heartbeats(store, now, received),
        alerts=received.alerts,
        alerts_as_of=received.alerts_as_of,
        locks=locks_of_run(store_at),
    )
    armed = frozenset(name for name, account in accounts.items() if account.armed)
    if other is not None:
        from killswitch.operations.plan_comparison import preview_both

        return preview_both(loaded.policies, other, snapshot, store, armed)
    interpreter, memory = from_store(loaded.policies, store)
    holds = () if store is None else manual_holds(store, now)
    shown = preview(loaded.policies, snapshot, interpreter, memory, armed, holds=holds)
    answers = gate_answers(shown.net_exposures, loaded.policies.limits, store_at, now)
    return replace(shown, gate_answers=answers), None


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


MOST_BYTES: Final = 64 * 1024 * 1024
"""Size from which a file is not read as a plan: a plan of a thousand accounts has a tenth of it."""


@verb("ksctl show trim.plan.json")
@click.argument("plan_at", metavar="FILE", type=IN_FILE)
@page_output
def show(plan_at: Path, output: str) -> None:
    """Show the saved plan in FILE: its orders, its locks and cancels, and the books that it is based on.

    It never refuses: of a file that was altered, is damaged, or was written by another version, it shows what can be
    read, and states what is wrong. Reads the file only, no store and no venue. Exits 0 in any case but a file that
    cannot be read at all.

    With --output json: `plan` as far as it can be read, `problems`, and `left_out`, the parts that cannot be read.
    """
    from killswitch.operations.pages.saved_plan import saved_plan_page
    from killswitch.planning.operator.plan_file import read_any

    with file_errors(str(plan_at)), plan_at.open("rb") as file:
        text = file.read(MOST_BYTES)
    read = read_any(text)
    print_answer(output, lambda: encode_record(read), lambda: saved_plan_page(read, str(plan_at), datetime.now(UTC)))
