"""Runs many backtests: books × rules over markets, in one process or several, until done or stopped."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from ctypes import c_bool
from typing import Any, Final, NoReturn, Protocol

from msgspec import Struct

from killswitch.lab.backtest import Rule
from killswitch.lab.bars import BarsError
from killswitch.lab.book import BacktestBook
from killswitch.lab.families import FamilyBook
from killswitch.lab.outcome import Run
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.render.formats import count_of
from killswitch.worker import Worker

STAGED: Final = "staged"
NONE: Final = "none"
CLOSE_ALL: Final = "close-all"
IN_PROPORTION: Final = "in-proportion"
RULES: tuple[Rule, ...] = (STAGED, NONE, CLOSE_ALL)
"""The rules that a backtest compares by default; the first one is compared with the others."""

Stop = Callable[[], bool]
OnBar = Callable[[int], None]
Source = Callable[[], PriceMatrix]
"""Makes a market's bars. With several processes it must be picklable, and each process calls it."""


class RunOne(Protocol):
    """Runs one book under one rule. With several processes it must be picklable.

    `stop` is called now and then, and a run that it ends is incomplete; `on_bar` receives the number of processed bars.
    BarsError or ValueError for a book that cannot be run.
    """

    def __call__(
        self, bars: PriceMatrix, book: BacktestBook, rule: Rule, *, with_curve: bool, stop: Stop, on_bar: OnBar
    ) -> Run: ...


class CampaignPart(Struct, frozen=True):
    """One book in one market."""

    market: str
    member: FamilyBook


class FailedRun(Struct, frozen=True):
    """A run that failed, and why. `rule` is None where the failure concerns no single rule."""

    market: str
    book: str
    rule: str | None
    text: str


class BookRuns(Struct, frozen=True):
    """One book in one market under every rule that was reached; `runs` in the order of the rules."""

    market: str
    member: FamilyBook
    runs: tuple[Run, ...]
    faults: tuple[FailedRun, ...] = ()

    def run(self, rule: str) -> Run | None:
        """Return the run under `rule`, None where it was not reached."""
        return next((run for run in self.runs if run.rule == rule), None)


class Results(Struct, frozen=True):
    """The results of a campaign, in the order of its parts.

    `is_complete`: every book was run under every rule to the last bar; `is_stopped`: a stop was requested.
    """

    tried: tuple[BookRuns, ...]
    faults: tuple[FailedRun, ...]
    wanted: int
    is_complete: bool
    is_stopped: bool


class CampaignProgress(Struct, frozen=True):
    """`done` runs of `total`; a run under way counts in part. `what` is under way, or was finished last."""

    done: float
    total: int
    what: str


OnProgress = Callable[[CampaignProgress], None]


class Campaign(Struct, frozen=True):
    """Every book of `parts` under every rule. Markets are loaded when needed, one at a time."""

    markets: Mapping[str, Source]
    parts: tuple[CampaignPart, ...]
    rules: tuple[Rule, ...]
    run_one: RunOne
    with_curves: bool = False

    def run(self, *, jobs: int = 1, stop: Stop, on_progress: OnProgress) -> Results:
        """Run the campaign in `jobs` processes. A run that fails becomes a fault and does not end the others."""
        outcomes = _run_here(self, stop, on_progress) if jobs <= 1 else _run_in_pool(self, jobs, stop, on_progress)
        tried = tuple(each for each in outcomes if each.runs)
        faults = tuple(fault for each in outcomes for fault in each.faults)
        all_complete = all(run.complete for each in tried for run in each.runs)
        done = sum(len(each.runs) for each in tried)
        return Results(
            tried, faults, len(self.parts), all_complete and done == len(self.parts) * len(self.rules), stop()
        )


class _PartRunner:
    """Runs parts one after the other, and keeps the bars of the last market."""

    def __init__(self, campaign: Campaign, stop: Stop) -> None:
        self._campaign, self._stop = campaign, stop
        self._market: str | None = None
        self._bars: PriceMatrix | None = None

    def outcome(self, part: CampaignPart, on_bar: Callable[[str, float], None]) -> BookRuns:
        """Run the part under each rule; `on_bar` receives the rule and the finished share of its run."""
        runs: list[Run] = []
        faults: list[FailedRun] = []
        for rule in self._campaign.rules:
            if self._stop():
                break
            try:
                runs.append(self._run(part, rule, on_bar))
            except Exception as error:  # noqa: BLE001 - a defect in one book must not lose the results of others
                text = str(error) if isinstance(error, BarsError | ValueError) else _defect(error)
                faults.append(FailedRun(part.market, part.member.book.name, rule, text))
        return BookRuns(part.market, part.member, tuple(runs), tuple(faults))

    def _run(self, part: CampaignPart, rule: Rule, on_bar: Callable[[str, float], None]) -> Run:
        if self._market != part.market or self._bars is None:
            self._bars, self._market = self._campaign.markets[part.market](), part.market
        bars = self._bars

        def counted(done: int) -> None:
            on_bar(rule, min(1.0, done / len(bars)))

        run, with_curve = self._campaign.run_one, self._campaign.with_curves
        return run(bars, part.member.book, rule, with_curve=with_curve, stop=self._stop, on_bar=counted)


def _defect(error: Exception) -> str:
    return f"{place_of(error)}; this is a defect, please report it"


def place_of(error: Exception) -> str:
    """The error with the place where it was raised: `KeyError: 'a' in file.py:12`."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} in {place.filename}:{place.lineno}"


def _run_here(campaign: Campaign, stop: Stop, on_progress: OnProgress) -> list[BookRuns]:
    runner = _PartRunner(campaign, stop)
    rules = len(campaign.rules)
    total = len(campaign.parts) * rules
    outcomes = []
    for number, part in enumerate(campaign.parts):

        def on_bar(rule: str, share: float, before: int = number * rules, part: CampaignPart = part) -> None:
            on_progress(CampaignProgress(before + campaign.rules.index(rule) + share, total, _what(part, rule)))

        if stop():
            break
        outcomes.append(runner.outcome(part, on_bar))
        on_progress(CampaignProgress((number + 1) * rules, total, _what(part, None)))
    return outcomes


def _what(part: CampaignPart, rule: str | None) -> str:
    return f"{part.market}: {part.member.book.name}{f', {rule}' if rule else ''}"


# -- several processes ----------------------------------------------------------------------------------------

_POLL_INTERVAL = 0.1
"""Seconds between two checks of whether to stop."""


def _run_in_pool(campaign: Campaign, jobs: int, stop: Stop, on_progress: OnProgress) -> list[BookRuns]:
    """Run in several processes. Workers are spawned, not forked, so that no thread of this process deadlocks them."""
    context = multiprocessing.get_context("spawn")
    halt: Any = context.Value(c_bool, False, lock=False)
    done = 0
    outcomes: dict[int, BookRuns] = {}
    lost: list[str] = []
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(campaign, halt)) as pool:
        with _blocked_interrupt():
            pending = {pool.submit(_run_part, number): number for number in range(len(campaign.parts))}
        while pending:
            if stop() and not halt.value:
                halt.value = True
                pending = {future: number for future, number in pending.items() if not future.cancel()}
            for future in wait(pending, timeout=_POLL_INTERVAL, return_when=FIRST_COMPLETED).done:
                number = pending.pop(future)
                part = campaign.parts[number]
                try:
                    outcomes[number] = future.result()
                except BrokenProcessPool:
                    if not stop():  # a stop of the process group stops the workers too
                        lost.append(part.member.book.name)
                done += len(campaign.rules)
                on_progress(CampaignProgress(done, len(campaign.parts) * len(campaign.rules), _what(part, None)))
    ordered = [outcome for _, outcome in sorted(outcomes.items())]
    return ordered + list(_died(campaign, lost))


@contextmanager
def _blocked_interrupt() -> Iterator[None]:
    """Block Ctrl-C for processes started in this context until `_begin` makes them ignore it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows has process groups of another kind
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _died(campaign: Campaign, lost: list[str]) -> Iterator[BookRuns]:
    if lost:
        text = f"a worker process died (killed, or out of memory?); not run: {count_of(len(lost), 'book')}, "
        text += "fewer --jobs may do"
        part = campaign.parts[0]
        yield BookRuns(part.market, part.member, (), (FailedRun("", f"{lost[0]} and what came after", None, text),))


_worker: _PartRunner | None = None
_parts: tuple[CampaignPart, ...] = ()


def _begin(campaign: Campaign, halt: Any) -> None:
    """Set up a worker, which ignores Ctrl-C: the signal goes to the whole process group, and the first process stops
    the others.

    SIGTERM ends a worker, also where the pool sends it after another one has died.
    """
    global _worker, _parts
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Worker("first process", _end_with_the_first).wake()
    _worker, _parts = _PartRunner(campaign, lambda: bool(halt.value)), campaign.parts


def _end_with_the_first() -> NoReturn:
    """End a worker whose first process was killed; otherwise it would wait forever."""
    first = multiprocessing.parent_process()
    assert first is not None  # a worker has a parent
    first.join()
    os._exit(1)


def _run_part(number: int) -> BookRuns:
    assert _worker is not None  # the initializer has run
    return _worker.outcome(_parts[number], lambda _rule, _share: None)
