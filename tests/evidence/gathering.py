"""The runs behind the page: books under policies and rules, in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

from msgspec import Struct

from killswitch.accounts.opening import read_policies
from killswitch.cli.lab.backtest_run import BacktestRun
from killswitch.graph.nodes import PolicySet
from killswitch.lab.backtest import Rule, never_stop
from killswitch.lab.campaign import NONE, STAGED
from killswitch.lab.outcome import Run
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.policy.loader import load
from killswitch.policy.schema.policy import PolicyDocument
from tests.evidence.markets import EvidenceBook, Span

Say = Callable[[str], None]
Trial = tuple[str, Rule]
"""A label and a rule: (`futures-degross (tight)`, `staged`)."""
UNPROTECTED: Trial = (NONE, NONE)

MEANT: Mapping[str, tuple[str, ...]] = {
    "futures-degross": ("hedged",),
    "futures-directional": ("directional",),
    "futures-concentrated": ("concentrated",),
    "futures-component-risk": ("concentrated",),
    "futures-drawdown": ("split",),
    "one-exchange-hedged": ("hedged",),
    "one-exchange-directional": ("directional", "concentrated"),
    "several-exchanges": ("several",),
    "spot-drawdown": ("spot",),
}
"""The kinds of book that a set's documentation says it is for; the first is the one of its own figures."""
RECOMMENDED = {
    "hedged": "one-exchange-hedged",
    "directional": "one-exchange-directional",
    "concentrated": "one-exchange-directional",
    "several": "several-exchanges",
    "spot": "spot-drawdown",
}
"""Kind of book → the set of the chooser."""
REFERENCE = "futures-drawdown"
"""The set that every recommendation is compared with."""
EVERYWHERE = (
    "circuit-breaker", "futures-component-risk", "futures-concentrated", "futures-degross", "futures-directional",
    REFERENCE, "one-exchange-directional", "one-exchange-hedged",
)  # fmt: skip
"""The sets that every swap book at one exchange is run under."""
COMPARED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("hedged", "directional", "concentrated", "split"), EVERYWHERE),
    "several": ("several-exchanges", "one-exchange-hedged", "circuit-breaker", REFERENCE),
    "spot": ("spot-drawdown", "circuit-breaker"),
}
"""Kind of book → the sets that it is run under: those that watch its accounts, and no others of the folder."""


class Candidate(Struct, frozen=True):
    """A policy set, or a variant of one: `label` is `futures-degross` or `futures-degross (tight)`."""

    label: str
    folder: str
    policies: PolicySet


class Case(Struct, frozen=True):
    """One book under each trial."""

    part: EvidenceBook
    runs: Mapping[Trial, Run]

    @property
    def unprotected(self) -> Run:
        return self.runs[UNPROTECTED]


class Task(Struct, frozen=True):
    """One book and what it is run under."""

    part: EvidenceBook
    trials: tuple[Trial, ...]


def candidates(policies: Path, names: Sequence[str], *, variants: bool) -> list[Candidate]:
    """The sets of these folders, each with its variants where they are wanted."""
    return [each for name in names for each in _candidates(policies / name, variants=variants)]


def _candidates(folder: Path, *, variants: bool) -> Iterator[Candidate]:
    yield Candidate(folder.name, folder.name, read_policies([folder]).policies)
    if not variants:
        return
    names = {
        name
        for document in load([folder]).documents
        if isinstance(document.model, PolicyDocument)
        for name in document.model.spec.variants or {}
    }
    for name in sorted(names):
        yield Candidate(f"{folder.name} ({name})", folder.name, read_policies([folder], variant=name).policies)


def run_all(
    books: Sequence[EvidenceBook],
    policies: Mapping[str, PolicySet],
    trials: Callable[[EvidenceBook], Sequence[Trial]],
    *,
    seed: int,
    jobs: int,
    say: Say,
) -> list[Case]:
    """Run each book under its trials, in `jobs` processes; the cases are in the order of the books.

    The first failed run ends all of it: a page with holes is no evidence. Books of one span are run one after the
    other, because making its bars takes longer than a run.
    """
    places = sorted(range(len(books)), key=lambda place: books[place].span.name)
    tasks = [Task(books[place], tuple(trials(books[place]))) for place in places]
    say(f"  {len(tasks)} books, {sum(len(task.trials) for task in tasks)} runs")
    found: dict[int, Case] = {}
    with ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (dict(policies), seed)) as pool:
        results = zip(places, tasks, pool.map(_run_task, tasks), strict=True)
        for done, (place, task, runs) in enumerate(results, start=1):
            found[place] = Case(task.part, dict(zip(task.trials, runs, strict=True)))
            if done % SAID_EVERY == 0:
                say(f"  {done} of {len(tasks)} books")
    return [found[place] for place in range(len(books))]


SAID_EVERY = 20


class _Worker:
    """What a process runs tasks with; kept in it, because sets are too large to send with every task."""

    def __init__(self) -> None:
        self.policies: dict[str, PolicySet] = {NONE: PolicySet("none", None, ())}
        self.seed = 0

    def run(self, task: Task) -> list[Run]:
        bars = bars_of(task.part.span)
        return [self._run(bars, task.part, *trial) for trial in task.trials]

    def _run(self, bars: PriceMatrix, part: EvidenceBook, label: str, rule: Rule) -> Run:
        run = BacktestRun(self.policies[label], self.seed)
        return run(bars, part.book, rule, with_curve=False, stop=never_stop, on_bar=lambda _: None)


_worker = _Worker()


def _begin(policies: dict[str, PolicySet], seed: int) -> None:
    _worker.policies.update(policies)
    _worker.seed = seed


def _run_task(task: Task) -> list[Run]:
    return _worker.run(task)


@lru_cache(maxsize=2)
def bars_of(span: Span) -> PriceMatrix:
    """The bars of a span; the last two are kept."""
    return span.bars()


def staged(label: str) -> Trial:
    """The trial of a set as it is."""
    return label, STAGED
