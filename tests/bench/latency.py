"""Event → first closing order: every named case at every wire-level venue, in the venues' own time, and silences.

    python -m tests.bench latency

A row for each case: the bound, the earlier measurement, and the seconds at each venue. A row with the bound `never` is
a case of transfers only. `none`: no order was sent; `-`: the venue lacks an ability that the case needs; `!`: the bound
is missed, or the case has a problem, which is printed under the row. No number depends on the speed of the machine.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

from killswitch.client.heartbeat import monotonic_seconds
from tests.bench.measure import Measure
from tests.e2e.fork_client import Process
from tests.e2e.processes import WatchedSite, armed_switch, paused
from tests.latency.case_runner import Outcome, cases_of, run
from tests.latency.cases import CASES, Case
from tests.latency.sites import ROUND_TRIP, TICK, VENUES

NO_ORDER: Final = 3600.0
"""Seconds that represent a missing order."""
BEFORE: Final[Mapping[str, str]] = {
    "plain": "15 s",
    "grinding": "10 s",
    "stops fill, rows 0s": "5-9 s",
    "stops fill, rows 30s": "36 s",
    "restart during the fall, stops fill": "62 s",
    "collateral falls 0.2% a second": "60 s",
    "cut in ten clips in a fall, rows never": "79-108 s",
    "positions unreadable": "none",
    "spot: 30% out, rows 1s": "sold",
    "spot: 80% in, rows 1s": "sold",
    "one of three down": "none",
}
"""Seconds from the event to the first order at commit 751e4db, on a wire-level Binance by other authors."""
HEAD: Final = f"{'case':<38}{'bound':>7}{'751e4db':>9}" + "".join(f"{name[:7]:>8}" for name in VENUES)


def measures() -> Iterator[Measure]:
    """A row for each case; then the worst delay relative to its bound, and the false closes."""
    print(f"event to first order, in seconds; a round trip is {ROUND_TRIP:g} s, the tick {TICK:g} s")
    if free := [name for name, venue in VENUES.items() if not venue.round_trip]:
        print(f"{', '.join(free)}: requests take no time, so that the bound is {3 * ROUND_TRIP:g} s lower")
    print(HEAD)
    outcomes = []
    for case in CASES.values():
        found = {name: run(name, case.name) for name, venue in VENUES.items() if case in cases_of(venue)}
        print(row(case, found), flush=True)
        outcomes += list(found.values())
    yield _slowest([it for it in outcomes if CASES[it.case].fires])
    yield _false_closes([it for it in outcomes if not CASES[it.case].fires])


def row(case: Case, outcomes: Mapping[str, Outcome]) -> str:
    """The case's row of the table, with its problems below."""
    bound = f"{TICK + 3 * ROUND_TRIP + case.more:.2f}" if case.fires else "never"
    cells = "".join(f"{_cell(outcomes.get(name)):>8}" for name in VENUES)
    problems = "".join(f"\n  {it.venue}: {each}" for it in outcomes.values() for each in it.problems)
    return f"{case.name:<38}{bound:>7}{BEFORE.get(case.name, ''):>9}{cells}{problems}"


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "-"
    elapsed = "none" if outcome.elapsed is None else f"{outcome.elapsed:.2f}"
    return elapsed if outcome.holds else f"{elapsed}!"


def _slowest(outcomes: list[Outcome]) -> Measure:
    def seconds(it: Outcome) -> float:
        return NO_ORDER if it.elapsed is None or it.problems or it.elapsed < 0 else it.elapsed

    # An order before its event has no bound, and is as wrong as none.
    worst = max(outcomes, key=lambda it: NO_ORDER if it.must_by is None else seconds(it) / it.must_by)
    ours = NO_ORDER if worst.must_by is None else seconds(worst)
    missed = sum(not it.holds for it in outcomes)
    name = f"event to first order, {missed} of {len(outcomes)} missed, worst {worst.case} at {worst.venue}"
    return Measure(name, ours, worst.must_by or 1.0, "bound", 1.0, "s")


def _false_closes(outcomes: list[Outcome]) -> Measure:
    closed = sum(not it.holds for it in outcomes)
    return Measure("orders where money only moved", float(closed), float(len(outcomes)), "all such runs", 0.0, "runs")


TIMEOUT, CHECK, CHECKS, READ_TIMEOUT = 1.0, 0.2, 2, 5.0
"""Seconds, and how often: the switch of the rounds below."""
LATEST: Final = TIMEOUT + CHECKS * CHECK + READ_TIMEOUT + 1.0
"""Seconds from the last heartbeat, or the watcher's start, to the first order."""
ROUNDS: Final = 200
CALM_FOR: Final = 2 * (TIMEOUT + CHECKS * CHECK)
"""Seconds after which a watcher that fires would have fired."""


def dead_man() -> Iterator[Measure]:
    """Last heartbeat → first change of a position at the venue, with processes that are killed at any moment.

    In each round a bot beats and a watcher listens. Of four rounds, one kills the bot; one kills the watcher, starts
    another one and kills the bot meanwhile; one kills the watcher, starts another one and lets the bot live; and one
    freezes the watcher for longer than the timeout and lets the bot live. In the last two nothing may be closed.
    """
    random = Random(20261125)
    delays, false, missed = [], 0, 0
    for number in range(ROUNDS):
        kind = ("bot", "both", "watcher", "pause")[number % 4]
        with TemporaryDirectory() as folder, armed_switch(Path(folder)) as (site, watching, bot):
            time.sleep(random.uniform(0.0, 1.0))
            delay = _silence(site, watching, bot, kind)
        if kind in ("watcher", "pause"):
            false += delay is not None
        elif delay is None:
            missed += 1
        else:
            delays.append(delay)
    worst = max(delays, default=NO_ORDER) if not missed else NO_ORDER
    delays.sort()
    median, longest = delays[len(delays) // 2], delays[-1]
    print(f"{len(delays)} closes, in seconds: median {median:.2f}, longest {longest:.2f}; {missed} missed")
    name = f"last heartbeat, or start of the watcher, to first order; worst of {len(delays)}"
    yield Measure(name, worst, LATEST, "bound", 1.0, "s")
    yield Measure("closes although the bot lives", float(false), float(ROUNDS / 2), "such rounds", 0.0, "runs")


def _silence(site: WatchedSite, watching: Process, bot: subprocess.Popen[bytes], kind: str) -> float | None:
    """Seconds from the last heartbeat, or the start of the watcher, to the first change at the venue; None if none."""
    before = site.contracts()
    if kind == "bot":
        bot.kill()
        bot.wait()
        return _until_changed(site, before, site.last_beat())
    if kind == "pause":
        with paused(watching):
            time.sleep(CALM_FOR)
        return _until_changed(site, before, monotonic_seconds(), within=CALM_FOR)
    watching.kill()
    watching.wait()
    if kind == "both":
        bot.kill()
        bot.wait()
    with site.watching():
        # The watcher listens since a moment before its first check is seen, which is the later of the two here.
        begun = monotonic_seconds()
        return _until_changed(site, before, begun, within=LATEST if kind == "both" else CALM_FOR)


def _until_changed(
    site: WatchedSite, before: Mapping[str, Decimal], begun: float, within: float = 5 * LATEST
) -> float | None:
    while (now := monotonic_seconds()) - begun < within:
        if site.contracts() != before:
            return now - begun
        time.sleep(0.01)
    return None
