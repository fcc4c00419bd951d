"""Assembles a live drill: its approvals, the adapter of its account, and the store of the runner that closes for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from msgspec import Struct

from killswitch.accounts.opening import open_accounts
from killswitch.cli.operate.command_delivery import this_user
from killswitch.cli.session import load_policies, opened_store
from killswitch.cli.terminal import print_note
from killswitch.gate.changes import GuardError
from killswitch.gate.files import guarded
from killswitch.model.instant import to_micros
from killswitch.model.store import DamagedStateError
from killswitch.model.venue import VenueAdapter
from killswitch.operations.approving import statement_place, trust_of
from killswitch.operations.drills.live import live_result, real_event_since
from killswitch.operations.drills.live_checks import (
    LiveOrder,
    RefusedDrillError,
    drill_approvals,
    opening_order,
    why_not_now,
)
from killswitch.operations.drills.live_run import LiveDrill, LiveRun, live_runs, run_to_continue
from killswitch.operations.drills.measures import DrillResult
from killswitch.operations.status import store_status
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.drill import DrillDocument, LivePosition
from killswitch.runner import process
from killswitch.runner.clock import SystemClock
from killswitch.source.approval_rules import CountedApprovals, Given
from killswitch.source.settings import SourceFileError, read_settings
from killswitch.source.statement_signatures import verify_all
from killswitch.source.statements import DELIVERED, StatementError, read_approval
from killswitch.store.sql import SqlStore


class LiveSite(Struct, frozen=True):
    """The options of a live drill: where its documents, the source file, the store and the approvals are."""

    policies_at: tuple[Path, ...]
    source_at: Path
    store_at: str
    approvals_at: tuple[Path, ...]
    author: str | None

    @property
    def who(self) -> str:
        """Who runs the drill, by their own statement."""
        return self.author or this_user()


def run_live(document: DrillDocument, site: LiveSite, *, is_live: bool, is_continued: bool) -> DrillResult | None:
    """Run the drill, or continue it, and return its result; None where it was only shown.

    ClickException with every reason where it may not begin: then nothing was sent.
    """
    position = document.spec.live
    if position is None:
        raise click.ClickException(f"{document.metadata.name} is no live drill: `ksctl drill run` runs it")
    with one_at_a_time(site.store_at), opened_store(site.store_at, read_only=False) as store:
        try:
            return _run(document, position, site, store, is_live=is_live, is_continued=is_continued)
        except (RefusedDrillError, DamagedStateError) as error:
            raise click.ClickException(str(error)) from error


@contextmanager
def one_at_a_time(store_at: str) -> Iterator[None]:
    """Hold the guard of a store, also by another name of its file: two drills would both find that nothing is open.

    ClickException where another one holds it.
    """
    path = Path(store_at.removeprefix("sqlite:///")).resolve()
    try:
        with guarded(path.parent, f".{path.name}.drill"):
            yield
    except GuardError as error:
        raise click.ClickException(f"another live drill of this store runs: {error}") from error


def _run(
    document: DrillDocument, live: LivePosition, site: LiveSite, store: SqlStore, *, is_live: bool, is_continued: bool
) -> DrillResult | None:
    name, clock = document.metadata.name, SystemClock()
    left = run_to_continue(store, name, live) if is_continued else None
    loaded, status = load_policies(site.policies_at), store_status(store, clock.now(), 0)
    reasons = list(why_not_now(status, live, loaded.policies.digest, is_continued=is_continued))
    counted = CountedApprovals(0) if is_continued else _approvals(document, site, store, to_micros(clock.now()))
    if not counted.is_approved:
        missing = f"{counted.needed} approvals are needed, and {len(counted.approvals)} count"
        reasons += [missing, *(each.line for each in counted.not_counted)]
    if reasons:
        raise RefusedDrillError(name, reasons)
    adapter = _adapter(live, loaded.accounts)
    real_event = real_event_since(site.store_at, clock.now())
    if not is_live:
        process.run(_shown(adapter, live, name))
        return None
    drill = LiveDrill(store, adapter, clock, real_event, print_note)

    async def work() -> LiveRun:
        try:
            if left is not None:
                return await drill.finish(left)
            people = tuple(sorted(each.principal for each in counted.approvals))
            return await drill.open_and_close(name, live, site.who, people, tuple(it.id for it in counted.approvals))
        finally:
            await adapter.close()

    ended = process.run(work())
    return live_result(document, ended, store, site.store_at, clock.now(), interrupted=_interrupted(real_event, left))


def _interrupted(real_event: Callable[[], str | None], left: LiveRun | None) -> str | None:
    """Why a drill is not measured although it was run to its end."""
    event = real_event()
    if event is not None:
        return f"ended by a real event: {event}"
    return None if left is None else f"continued after it was interrupted at {left.at:%Y-%m-%d %H:%M} UTC"


def _approvals(document: DrillDocument, site: LiveSite, store: SqlStore, now: int) -> CountedApprovals:
    """The approvals that count now, of the files and of what was delivered to the store."""
    try:
        settings = read_settings(site.source_at)
    except SourceFileError as error:
        raise click.ClickException(f"{site.source_at} has mistakes: `ksctl validate` shows them") from error
    trust = trust_of(settings, store)
    if isinstance(trust, str):
        raise RefusedDrillError(document.metadata.name, (f"who may approve is unknown: {trust}",))
    delivered = (each for each in store.live_under(DELIVERED).values() if _is_of_drill(each))
    verified, problems = verify_all((*(each.read_bytes() for each in site.approvals_at), *delivered), trust, now)
    spent = frozenset(one for each in live_runs(store) for one in each.spent)
    place = (settings.name, *statement_place(settings))
    began = store.record_began_at()
    since = None if began is None else to_micros(began.replace(microsecond=0))  # as statements are dated
    given = Given(verified, spent, trust, since)
    counted = drill_approvals(document, place, given, site.who)
    return CountedApprovals(counted.needed, counted.approvals, (*counted.not_counted, *problems))


def _is_of_drill(content: bytes) -> bool:
    """Whether a delivered statement is about a drill: what others are about is not looked at here."""
    try:
        return read_approval(content).statement.purpose == "drill"
    except StatementError:
        return False


def _adapter(live: LivePosition, accounts: Sequence[AccountDocument]) -> VenueAdapter:
    """The adapter of the drill's account, which also reads the prices of the symbol."""
    watching = [
        each.model_copy(update={"spec": each.spec.model_copy(update={"watch": (live.symbol, *each.spec.watch)})})
        for each in accounts
        if each.metadata.name == live.account
    ]
    return open_accounts(watching, live=True)[live.account].adapter


async def _shown(adapter: VenueAdapter, live: LivePosition, name: str) -> None:
    """Print what the drill would open now. RefusedDrillError where it would not."""
    try:
        found = opening_order(await adapter.snapshot(), live)
    finally:
        await adapter.close()
    if not isinstance(found, LiveOrder):
        raise RefusedDrillError(name, found)
    print_note(
        f"nothing was sent: with --live it would buy {found.amount.normalize():f} {found.symbol} on {found.account}, "
        "and have the runner close it"
    )
