"""Replays of two policy sets over a library of spans: crashes and calm times of prices, and recordings.

The bars of a span are read once for all its books and both sets, one span at a time. Sets whose graphs are equal are
replayed once.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from decimal import ROUND_DOWN, Decimal
from functools import partial
from pathlib import Path
from typing import Literal

from msgspec import Struct, structs

from killswitch.graph.nodes import PolicySet
from killswitch.lab.bars import BarsError
from killswitch.lab.book import BacktestBook, BookAccount, BookPosition
from killswitch.lab.campaign import STAGED, Campaign, CampaignPart, RunOne, Source
from killswitch.lab.crash import CrashModel, crash_bars
from killswitch.lab.families import EQUITY, GROSS, LEVERAGE, FamilyBook
from killswitch.lab.impact.firing_changes import ComparedFiring, compared_decisions, compared_firings
from killswitch.lab.outcome import Run
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.lab.recording import RecordingError, read, replay
from killswitch.market.account import CASH_MARKETS
from killswitch.model.decision import Decision
from killswitch.model.snapshot import Market, Snapshot
from killswitch.planning.scopes.compiled_policy import scopes_of

SpanKind = Literal["crash", "calm"]
"""In a calm span nothing should fire: what does is a false firing."""


class ReplayedSpan(Struct, frozen=True):
    """A span of prices. `source` must be picklable where several processes replay."""

    name: str
    kind: SpanKind
    source: Source


class ReplayedAccount(Struct, frozen=True):
    """An account of a generated book, as the policies know it."""

    account: str
    venue: str = "paper"
    market: Market = "swap"
    currency: str = "USDT"


class SpanReplay(Struct, frozen=True):
    """One book through one span under both sets. `problem`: why it could not be replayed; then the runs are None."""

    span: str
    kind: SpanKind
    book: str
    base: Run | None
    head: Run | None
    firings: tuple[ComparedFiring, ...] = ()
    problem: str = ""


class RecordingReplay(Struct, frozen=True):
    """What both sets decide over one recording of snapshots; `problem` as above. Decisions only."""

    recording: str
    snapshots: int
    firings: tuple[ComparedFiring, ...] = ()
    problem: str = ""


class ReplayPlan(Struct, frozen=True):
    """What is replayed: spans, the books of each (empty: one is generated from `accounts`), and how.

    `run_base` and `run_head` run one book under one set; `run_head` is None where it would run the same graphs.
    """

    spans: tuple[ReplayedSpan, ...]
    books: tuple[BacktestBook, ...]
    accounts: tuple[ReplayedAccount, ...]
    sets: tuple[PolicySet, PolicySet]
    run_base: RunOne
    run_head: RunOne | None
    with_curves: bool = False


def replay_spans(plan: ReplayPlan, jobs: int = 1) -> tuple[SpanReplay, ...]:
    """Replay everything, in the order of the spans and books. What fails is a replay with a problem."""
    if jobs <= 1 or len(plan.spans) <= 1:
        return tuple(found for span in plan.spans for found in _replay_span(plan, span))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(plan.spans)), mp_context=context) as pool:
        parts = [pool.submit(_replay_one, structs.replace(plan, spans=(span,))) for span in plan.spans]
        return tuple(found for part in parts for found in part.result())


def _replay_one(plan: ReplayPlan) -> tuple[SpanReplay, ...]:
    return tuple(_replay_span(plan, plan.spans[0]))


def _replay_span(plan: ReplayPlan, span: ReplayedSpan) -> Iterator[SpanReplay]:
    try:
        bars = span.source()
    except BarsError as error:
        yield SpanReplay(span.name, span.kind, "", None, None, problem=str(error))
        return
    books = plan.books or tuple(generated_books(bars.symbols, plan.accounts))
    for book in books:
        if not any(is_watched(each, book) for each in plan.sets):
            accounts = ", ".join(
                f"{each.account} ({each.venue}, {each.market}, {each.currency})" for each in book.accounts
            )
            problem = f"no policy of either set watches its accounts: {accounts}"
            yield SpanReplay(span.name, span.kind, book.name, None, None, problem=problem)
        else:
            yield _replay_book(plan, span, bars, book)


def _replay_book(plan: ReplayPlan, span: ReplayedSpan, bars: PriceMatrix, book: BacktestBook) -> SpanReplay:
    runs: list[Run] = []
    for runner in (plan.run_base, plan.run_head):
        if runner is None:
            runs.append(runs[0])
            break
        part = CampaignPart(span.name, FamilyBook("given", book))
        campaign = Campaign({span.name: lambda: bars}, (part,), (STAGED,), runner, plan.with_curves)
        results = campaign.run(stop=_never, on_progress=lambda _: None)
        run = results.tried[0].run(STAGED) if results.tried else None
        if run is None:
            problem = "; ".join(each.text for each in results.faults) or "the run has no result"
            return SpanReplay(span.name, span.kind, book.name, None, None, problem=problem)
        runs.append(run)
    base, head = runs
    return SpanReplay(span.name, span.kind, book.name, base, head, compared_firings(base, head))


def _never() -> bool:
    return False


def is_watched(policies: PolicySet, book: BacktestBook) -> bool:
    """Whether any policy watches an account of the book."""
    accounts = [(each.account, each.venue, each.market, each.currency) for each in book.accounts]
    return any(scopes_of(graph.scope, accounts) for graph in policies.graphs)


def generated_books(symbols: Sequence[str], accounts: Sequence[ReplayedAccount]) -> Iterator[BacktestBook]:
    """The books of a change that is given none, with 100,000 of equity in each account: one that is long, with a gross
    of one and a half times its equity, and one whose first half of the symbols is long and whose other half is short,
    with a gross of three times its equity. An account without margin and short positions is long with its equity."""
    held = accounts or (ReplayedAccount("main"),)
    longs = (len(symbols) + 1) // 2
    has_margin = any(each.market not in CASH_MARKETS for each in held)
    yield _generated("long", [_account(each, symbols, len(symbols), EQUITY * GROSS / 2) for each in held])
    if has_margin and len(symbols) > 1:
        yield _generated("half long, half short", [_account(each, symbols, longs, EQUITY * GROSS) for each in held])


def _generated(name: str, accounts: Sequence[BookAccount]) -> BacktestBook:
    return BacktestBook(name=name, accounts=tuple(accounts))


def _account(of: ReplayedAccount, symbols: Sequence[str], longs: int, gross: Decimal) -> BookAccount:
    is_cash = of.market in CASH_MARKETS
    each = ((EQUITY if is_cash else gross) / len(symbols)).quantize(Decimal("0.01"), rounding=ROUND_DOWN)
    positions = tuple(
        BookPosition(
            symbol=symbol, side="long" if is_cash or number < longs else "short", notional=each,
            leverage=None if is_cash else LEVERAGE,
        )
        for number, symbol in enumerate(symbols)
    )  # fmt: skip
    return BookAccount(
        account=of.account, venue=of.venue, market=of.market, currency=of.currency, equity=EQUITY, positions=positions
    )


def replay_recording(path: Path, name: str, sets: tuple[PolicySet, PolicySet]) -> RecordingReplay:
    """Compare what both sets decide over a recording. What cannot be read is a problem, with its file and line."""
    decided: list[list[Decision]] = []
    count = 0
    try:
        for policies in sets:
            snapshots = _Counted(read(path))
            decided.append([each for each in replay(policies, snapshots) if isinstance(each, Decision)])
            count = snapshots.count
    except RecordingError as error:
        return RecordingReplay(name, 0, problem=str(error))
    return RecordingReplay(name, count, compared_decisions(*decided))


class _Counted:
    """Counts the snapshots that are read."""

    def __init__(self, snapshots: Iterator[Snapshot]) -> None:
        self._snapshots = snapshots
        self.count = 0

    def __iter__(self) -> Iterator[Snapshot]:
        for each in self._snapshots:
            self.count += 1
            yield each


# -- the spans that are shipped: every price in them is invented ------------------------------------------------------

CRASHES = {
    "generated-fall-35": (1, CrashModel()),
    "generated-fall-20-fast": (2, CrashModel(crash=20, fall=0.20, rebound=20)),
    "generated-slide-30-slow": (3, CrashModel(crash=480, fall=0.30, rebound=60, jumps=2.0)),
}
"""Name → seed and shape: a fall of 35% in an hour, of 20% in 20 minutes, and of 30% in eight hours."""
CALM = {"generated-calm-day": (4, CrashModel(calm=1440, crash=0, rebound=0, after=0, fall=0.0))}


def shipped_spans() -> tuple[ReplayedSpan, ...]:
    """The generated spans, for a change that is given none."""
    crashes = (ReplayedSpan(name, "crash", partial(_matrix, *of)) for name, of in CRASHES.items())
    return (*crashes, *(ReplayedSpan(name, "calm", partial(_matrix, *of)) for name, of in CALM.items()))


def _matrix(seed: int, model: CrashModel) -> PriceMatrix:
    return PriceMatrix(crash_bars(seed, model))
