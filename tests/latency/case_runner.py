"""Runs one case at one venue, and compares the outcome with the venue's own ledger."""

from __future__ import annotations

import asyncio
import tempfile
from decimal import Decimal
from pathlib import Path

from msgspec import Struct

from tests.latency.cases import CASES, Case
from tests.latency.sites import OPEN_MARKET, TICK, VENUES, WARM_UP, Site, Venue
from tests.virtual_time import START, VirtualTime

D = Decimal
STEP = 0.05
"""Seconds between two checks whether a run has ended."""


class Outcome(Struct, frozen=True):
    """The outcome of a case at a venue. `must_by`: the seconds within which it had to fire; None: never.

    `elapsed`: seconds from the event (without one: from the scenario's start) to the first closing order, or to the
    decision where the case requires only that; None: there was none.
    """

    venue: str
    case: str
    elapsed: float | None
    must_by: float | None
    problems: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        if self.problems:
            return False
        if self.must_by is None:
            return self.elapsed is None
        return self.elapsed is not None and 0 <= self.elapsed <= self.must_by + 1e-6

    @property
    def line(self) -> str:
        """A row of the table."""
        elapsed = "none" if self.elapsed is None else f"{self.elapsed:.2f} s"
        must = "never" if self.must_by is None else f"≤ {self.must_by:.2f} s"
        end = "" if self.holds else "  MISSED"
        more = "".join(f"\n    {it}" for it in self.problems)
        return f"{self.case:<42} {self.venue:<14} {elapsed:>9}  {must:>10}{end}{more}"


def cases_of(venue: Venue) -> tuple[Case, ...]:
    """The cases whose needs the venue meets."""
    return tuple(it for it in CASES.values() if it.needs <= venue.can)


def run(venue_name: str, case_name: str) -> Outcome:
    """Run the case at the venue, in virtual time."""
    venue, case = VENUES[venue_name], CASES[case_name]
    time = VirtualTime(OPEN_MARKET if venue.market == "equity" else START)
    # A worker that the end of the played time abandons may still write a file.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return time.run(_play(Site(
            venue, Path(folder), time, accounts=case.accounts, mode=case.mode, portfolio=len(case.accounts) > 1,
            pushed=case.pushed,
        ), case))  # fmt: skip


async def _play(site: Site, case: Case) -> Outcome:
    _prepare(site, case)
    await site.open()
    site.start()
    try:
        await asyncio.sleep(WARM_UP)
        early = site.observe()
        if early.order_at is not None or early.decided_at is not None:
            site.observed.problems.append(f"it fired before anything happened: {early}")
        site.begin()
        began = site.time.elapsed
        scenario = asyncio.ensure_future(_play_scenario(site, case))
        while site.now < case.lasts:
            await asyncio.sleep(STEP)
            observed = site.observe()
            if (observed.order_at if case.by == "order" else observed.decided_at) is not None:
                break
        scenario.cancel()
        await asyncio.gather(scenario, return_exceptions=True)
    finally:
        await site.close()
    return _outcome(site, case, began)


def _prepare(site: Site, case: Case) -> None:
    """Set up the state that a case finds at its venue."""
    if "collateral" in case.needs:
        wire, asset = site.wire, site.venue.collateral[0]
        wire.ledger.prices[asset] = D(50_000)
        wire.ledger.wallets[asset] = D("1.9")
        wire.ledger.wallets[wire.currency] = D(5_000)
        if hasattr(wire, "multi_assets"):
            wire.multi_assets = True
        for key in list(wire.exchange.held):
            wire.exchange.held[key] /= 10
        wire.ledger.record()
    for name, wire in site.wires.items():
        if name == "dark":
            for key in list(wire.exchange.held):
                wire.exchange.held[key] /= 100


async def _play_scenario(site: Site, case: Case) -> None:
    try:
        await case.scenario(site)
    except asyncio.CancelledError:
        raise
    except Exception as error:
        site.observed.problems.append(f"the scenario failed: {type(error).__name__}: {error}")
        raise


def _outcome(site: Site, case: Case, began: float) -> Outcome:
    observed = site.observe()
    fired_at = observed.order_at if case.by == "order" else observed.decided_at
    event = site.wires[case.of].ledger.truth.fell_to(case.threshold, since=began, until=fired_at)
    lost = site.wires[case.of].ledger.truth.fell_to(case.threshold, since=began) is not None
    if lost is not case.fires and (fired_at is None or lost):
        observed.problems.append(f"the case is wrong: {'too much' if lost else 'nothing'} was lost in it")
    # A runner that was not running at the event can detect it only from its start on.
    since = began if event is None else max(event, site.runner_started_at)
    bound = None if event is None else TICK + 3 * site.venue.round_trip + case.more
    elapsed = None if fired_at is None else fired_at - since
    return Outcome(site.venue.name, case.name, elapsed, bound, tuple(observed.problems))
