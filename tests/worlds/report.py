"""Printed output: the table over families, and one world tick by tick."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from killswitch.model.snapshot import Snapshot
from killswitch.planning.interpreter import Interpreter, Outcome
from killswitch.render.formats import interval
from tests.worlds.catalogue import FAMILIES, NAMED
from tests.worlds.families import Family
from tests.worlds.judge import THRESHOLD, Setup, Verdict, judge, judge_reference
from tests.worlds.reference import Reference

COLUMNS = (("worlds", 7), ("false", 6), ("real", 6), ("p50", 7), ("p90", 7), ("max", 7),
    ("late", 6), ("missed", 7), ("wrong", 6), ("locks", 6),)  # fmt: skip
HEAD = f"{'family':<38}" + "".join(f"{name:>{width}}" for name, width in COLUMNS) + "  page"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed; NaN of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def run_one(name: str, seed: int, rule: str = "product") -> Verdict:
    """One world of a family, judged; `rule` may be `page`, for the naive implementation of the first rule."""
    setup = FAMILIES[name].world(seed)
    return judge(setup, name, seed) if rule == "product" else judge_reference(setup, name, seed)


def chosen(parts: Sequence[str]) -> list[Family]:
    """The families whose names contain any of `parts`; all where there are none."""
    return [each for each in FAMILIES.values() if not parts or any(part in each.name for part in parts)]


def complaints(family: Family, verdicts: Sequence[Verdict]) -> list[str]:
    """The deviations of a family from what it is allowed, in sentences; none where it has none."""
    found = []
    false = [each for each in verdicts if each.false]
    allowed = math.floor(family.false_allowed * len(verdicts))
    if len(false) > allowed:
        found += [f"{len(false)} of {len(verdicts)} worlds closed falsely, {allowed} allowed", *map(str, false)]
    found += [str(each) for each in verdicts if each.bad and not each.false]
    delays = [delay for each in verdicts for delay in each.delays]
    for share, bound in ((0.5, family.p50), (0.9, family.p90)):
        if bound is not None and delays and percentile(delays, share) > bound:
            found.append(f"p{share * 100:.0f} of delays is {percentile(delays, share):.1f} s, {bound:.1f} s allowed")
    return found


def line(family: Family, verdicts: Sequence[Verdict]) -> str:
    """A line of the table."""
    delays = [delay for each in verdicts for delay in each.delays]
    numbers = [
        f"{percentile(delays, share):>7.1f}" if delays else f"{'-':>7}" for share in (0.5, 0.9, 1.0)
    ]  # fmt: skip
    missed, late = sum(len(each.missed) for each in verdicts), sum(len(each.late) for each in verdicts)
    false, locks = sum(bool(each.false) for each in verdicts), sum(bool(each.locked) for each in verdicts)
    real, wrong = len(delays) + missed, sum(bool(each.misread) for each in verdicts)
    counts = f"{len(verdicts):>7}{false:>6}{real:>6}{''.join(numbers)}{late:>6}{missed:>7}{wrong:>6}{locks:>6}"
    return f"{family.name:<38}{counts}  {family.page}"


def table(parts: Sequence[str], worlds: int, seed: int, jobs: int, *, verbose: bool, rule: str = "product") -> int:
    """Print the table; 1 if any family is outside of what it is allowed."""
    families = chosen(parts)
    tasks = [(family.name, each, rule) for family in families for each in range(seed, seed + worlds)]
    begun = time.perf_counter()
    if jobs > 1:
        with ProcessPoolExecutor(jobs) as pool:
            verdicts = list(pool.map(run_one, *zip(*tasks, strict=True), chunksize=8))
    else:
        verdicts = [run_one(*task) for task in tasks]
    spent = time.perf_counter() - begun
    bad = 0
    print(HEAD)
    for family in families:
        mine = [each for each in verdicts if each.family == family.name]
        wrong = complaints(family, mine)
        bad += bool(wrong)
        print(line(family, mine) + ("   <--" if wrong else ""))
        if verbose:
            print("".join(f"  {text}\n" for text in wrong), end="")
    print(f"{len(tasks)} worlds in {spent:.1f} s, {spent / max(len(tasks), 1):.3f} s each; {bad} families to look at")
    return 1 if bad else 0


def show(name: str, seed: int) -> int:
    """Print one world tick by tick, with the product's state and decisions."""
    setup = NAMED[name].make() if name in NAMED else FAMILIES[name].world(seed)
    print("time, account, true unit value, true drawdown | equity [wallets] unrealized | positions | rows read")
    print("-> what the product makes of it; .. what the naive reading makes of it; !! a notice; ## a decision")
    print("** what truly happens")
    printed = 0
    page = Reference(setup.scope, THRESHOLD)

    def on_tick(at: float, snapshot: Snapshot, interpreter: Interpreter, outcome: Outcome) -> None:
        nonlocal printed
        for when, text in setup.world.log[printed:]:
            if when > at:
                break
            printed += 1
            print(f"{when:7.2f} ** {text}")
        for line in _lines(setup, at, snapshot, interpreter, outcome):
            print(line)
        closes = page.tick(snapshot)
        falls = " ".join(f"{scope}={fall:.4f}" for scope, fall in page.falls.items())
        print(f"        .. {falls}" + (f" ## closes {closes}" if closes else ""))

    print(judge(setup, name, seed, on_tick))
    return 0


def _lines(setup: Setup, at: float, snapshot: Snapshot, interpreter: Interpreter, outcome: Outcome) -> list[str]:
    lines = []
    truths = {truth.scope: truth for truth, _ in setup.world.truths}
    for account in snapshot.accounts:
        truth = truths[account.account]
        wallets = " ".join(f"{b.asset} {b.amount:,.4f}@{b.price}" for b in account.balances or ())
        held = "unknown" if account.positions is None else " ".join(
            f"{p.symbol.split('/')[0]} {p.side} {p.contracts}@{p.mark_price}" for p in account.positions
        )  # fmt: skip
        rows = " ".join(
            [f"{f.side} {f.amount} {f.symbol.split('/')[0]}@{f.price}" for f in account.fills or ()]
            + [f"{f.kind} {f.amount:,.2f} {f.currency}" for f in account.flows or ()]
        )
        equity = "-" if account.equity is None else f"{account.equity:,.2f}"
        unrealized = "-" if account.unrealized is None else f"{account.unrealized:,.2f}"
        lines.append(
            f"{at:7.2f} {account.account:<5} {truth.value(at):.5f} {truth.fall(at):6.2%} | "
            f"{account.quality if account.quality != 'ok' else equity} [{wallets}] {unrealized} | {held} | {rows}"
        )
    if "portfolio" in truths:
        lines.append(f"{at:7.2f} all   {truths['portfolio'].value(at):.5f} {truths['portfolio'].fall(at):6.2%}")
    for status in interpreter.status():
        readings = " ".join(f"{each.name}={interval(each.value, each.unit)}" for each in status.triggers)
        lines.append(f"        -> {status.scope} level {status.level} {readings}")
    lines += [f"        !! {notice.kind}: {notice.text}" for notice in outcome.notices]
    lines += [
        f"        ## {each.scope} level {each.level}: {len(each.intents)} orders, lock: {each.lock is not None}"
        for each in outcome.decisions
    ]
    return lines
