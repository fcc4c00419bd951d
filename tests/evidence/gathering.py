"""The runs behind the page: every policy and variant, over every market and kind of book."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

from msgspec import Struct

from killswitch.accounts.opening import read_policies
from killswitch.cli.lab.backtest_books import BacktestOptions, market_folders, panel_of
from killswitch.cli.lab.backtest_books import load_books as books_of
from killswitch.cli.lab.backtest_run import BacktestRun
from killswitch.graph.nodes import PolicySet
from killswitch.lab.backtest import never_stop
from killswitch.lab.campaign import CLOSE_ALL, IN_PROPORTION, NONE, STAGED, BookRuns, Campaign, CampaignPart
from killswitch.lab.outcome import Run, RunCurve
from killswitch.model.instant import to_micros
from killswitch.planning.scopes.compiled_policy import scopes_of
from killswitch.policy.loader import load
from killswitch.policy.schema.policy import PolicyDocument

CALM = "calm-"
"""Folders whose name begins so hold an ordinary month, not a crash."""
SPLITS_OF = 8
"""A market with so many symbols also gives all of its four-long/four-short books."""
HORIZON = timedelta(hours=24)
GROSS = Decimal(3)

Say = Callable[[str], None]
MEANT = {
    "futures-degross": "hedged",
    "futures-directional": "directional",
    "futures-concentrated": "concentrated",
    "futures-component-risk": "concentrated",
    "futures-drawdown": "split",
    "one-exchange-hedged": "hedged",
    "one-exchange-directional": "directional",
}
"""The kind of book that a policy's documentation says it is for."""
COMPARED = {*MEANT, "circuit-breaker"}
"""The folders of the page: the rules of the others run for days in every tick, or are parts of these."""


class Candidate(Struct, frozen=True):
    """A policy, or a variant of one: `label` is `futures-degross` or `futures-degross (tight)`."""

    label: str
    folder: str
    policies: PolicySet


class Case(Struct, frozen=True):
    """One book in one market, with no protection and under each label and rule."""

    part: CampaignPart
    unprotected: Run
    protected: Mapping[tuple[str, str], Run]


class Firings(Struct, frozen=True):
    """What one label did in one book of a calm market: how often it fired, and how often falsely.

    False: HORIZON after the firing (at the end of the bars, where that is sooner), the unprotected book had at least
    the equity of the time when the stage fired.
    """

    label: str
    kind: str
    fired: int
    false: int
    cost: Decimal
    """Final equity without protection less that with it."""


class Evidence(Struct, frozen=True):
    """All data of the page."""

    tested: tuple[Candidate, ...]
    cases: tuple[Case, ...]
    calm: tuple[Firings, ...]
    missing: tuple[str, ...]
    seed: int
    random: int


def gather(markets: Path, policies: Path, *, random: int, seed: int, jobs: int, say: Say) -> Evidence:
    """Run everything. The first failed run aborts it: a page with holes is no evidence."""
    folders = market_folders(markets)
    parts: list[CampaignPart] = []
    missing: list[str] = []
    for folder in folders:
        whole = 4 if len(list(folder.glob("*.parquet")) + list(folder.glob("*.csv"))) == SPLITS_OF else None
        made = books_of(BacktestOptions((folder,), None, None, None, whole, random, GROSS, seed))
        parts += made.parts
        missing += made.missing
    tested = tuple(tested_policies(policies))
    sources = {folder.name: partial(panel_of, folder) for folder in folders}

    def campaign(
        policy_set: PolicySet, *rules: str, course: bool = False, only: tuple[CampaignPart, ...] = ()
    ) -> Campaign:
        return Campaign(sources, only or tuple(parts), rules, BacktestRun(policy_set, seed), course)  # type: ignore[arg-type] # the names are rules

    say(f"{len(parts)} books without protection")
    bare = _all(campaign(tested[0].policies, NONE), jobs)
    protected: list[dict[tuple[str, str], Run]] = [{} for _ in parts]
    for each in tested:
        say(f"{len(parts)} books under {each.label}")
        for place, tried in enumerate(_all(campaign(each.policies, STAGED, CLOSE_ALL, IN_PROPORTION), jobs)):
            protected[place] |= {(each.label, run.rule): run for run in tried.runs}
    cases = tuple(
        Case(part, tried.runs[0], runs) for part, tried, runs in zip(parts, bare, protected, strict=True)
    )  # fmt: skip
    say("firings of calm months")
    calm = tuple(
        firings
        for case in cases
        if case.part.market.startswith(CALM)
        for firings in _calm(case, campaign(tested[0].policies, NONE, course=True, only=(case.part,)), tested)
    )
    return Evidence(tested, cases, calm, tuple(missing), seed, random)


def tested_policies(policies: Path) -> Iterator[Candidate]:
    """Each of the compared folders whose policies watch a swap account, in its default and in each of its variants."""
    for folder in sorted(path for path in policies.iterdir() if path.name in COMPARED):
        found = read_policies([folder]).policies
        account = ("main", "paper", "swap", "USDT")
        closing = any(
            type(action).__name__ == "Close" for g in found.graphs for stage in g.stages for action in stage.actions
        )
        if not closing or not any(scopes_of(graph.scope, [account]) for graph in found.graphs):
            continue
        yield Candidate(folder.name, folder.name, found)
        names = {
            name
            for document in load([folder]).documents
            if isinstance(document.model, PolicyDocument)
            for name in document.model.spec.variants or {}
        }
        for name in sorted(names):
            varied = read_policies([folder], variant=name).policies
            yield Candidate(f"{folder.name} ({name})", folder.name, varied)


def _all(campaign: Campaign, jobs: int) -> tuple[BookRuns, ...]:
    results = campaign.run(jobs=jobs, stop=never_stop, on_progress=lambda _: None)
    if not results.is_complete:
        raise SystemExit("\n".join(f"{one.market}: {one.book}: {one.rule}: {one.text}" for one in results.faults))
    return results.tried


def _calm(case: Case, campaign: Campaign, tested: tuple[Candidate, ...]) -> Iterator[Firings]:
    (again,) = _all(campaign, 1)
    course = again.runs[0].course
    assert course is not None  # the campaign asked for it
    for each in tested:
        staged = case.protected[each.label, STAGED]
        false = sum(recovered(course, to_micros(firing.at)) for firing in staged.firings)
        cost = case.unprotected.final_equity - staged.final_equity
        yield Firings(each.label, case.part.member.kind, len(staged.firings), false, cost)


def recovered(course: RunCurve, at: int) -> bool:
    then = bisect_left(course.at, at)
    later = min(bisect_left(course.at, at + round(HORIZON.total_seconds() * 1_000_000)), len(course.at) - 1)
    return course.equity[later] >= course.equity[then]
