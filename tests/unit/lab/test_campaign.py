"""Campaigns: every book under every rule, in one process or several, whatever happens to one of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from killswitch.lab.backtest import Rule
from killswitch.lab.bars import BarsError
from killswitch.lab.book import BacktestBook
from killswitch.lab.campaign import RULES, Campaign, CampaignPart, CampaignProgress, Stop
from killswitch.lab.families import FamilyBook, half_and_half
from killswitch.lab.outcome import Run
from killswitch.lab.price_matrix import PriceMatrix
from tests.backtests import calm_bars
from tests.runs import run

BOOK = half_and_half(("BTC_USDT", "ETH_USDT"))


def panel() -> PriceMatrix:
    return PriceMatrix(calm_bars(1, 5))


def no_bars() -> PriceMatrix:
    raise BarsError("m/BTC_USDT.csv: row 7: not a bar")


@dataclass(frozen=True)
class Pretended:
    """Runs a book in no time; what a book's name says, happens to it."""

    def __call__(
        self,
        bars: PriceMatrix,
        book: BacktestBook,
        rule: Rule,
        *,
        with_curve: bool,
        stop: Stop,
        on_bar: Callable[[int], None],
    ) -> Run:
        if book.name == "broken" and rule == "none":
            raise ValueError("BTC_USDT: notional 5 is less than a lot")
        if book.name == "defect":
            raise KeyError("oh")
        if book.name == "killer":
            os._exit(3)
        on_bar(len(bars))
        return run(rule, str(len(book.name)), book=book.name)


def campaign(*names: str, source: Callable[[], PriceMatrix] = panel) -> Campaign:
    parts = tuple(CampaignPart("m", FamilyBook("given", BOOK.model_copy(update={"name": name}))) for name in names)
    return Campaign({"m": source}, parts, RULES, Pretended())


def never() -> bool:
    return False


def nothing(_: CampaignProgress) -> None:
    pass


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_book_is_run_under_every_rule_in_order(jobs: int) -> None:
    """However many processes share the work. One book under one rule cannot be: that is told beside the results."""
    results = campaign("a", "broken", "ccc").run(jobs=jobs, stop=never, on_progress=nothing)
    assert [(each.member.book.name, [run.rule for run in each.runs]) for each in results.tried] == [
        ("a", list(RULES)), ("broken", [rule for rule in RULES if rule != "none"]), ("ccc", list(RULES)),
    ]  # fmt: skip
    (fault,) = results.faults
    assert (fault.book, fault.rule, fault.text) == ("broken", "none", "BTC_USDT: notional 5 is less than a lot")
    assert (results.is_complete, results.is_stopped, results.wanted) == (False, False, 3)


@pytest.mark.parametrize("jobs", [1, 2])
def test_where_all_could_be_run_the_results_are_complete(jobs: int) -> None:
    """No fault, and none that is missing, however many processes share the work."""
    results = campaign("a", "bb").run(jobs=jobs, stop=never, on_progress=nothing)
    assert (results.is_complete, results.wanted, results.faults) == (True, 2, ())


def test_a_defect_is_told_with_its_place() -> None:
    """It costs nobody else's results, and it is not called a mistake of the user's."""
    results = campaign("defect", "a").run(stop=never, on_progress=nothing)
    assert len(results.faults) == 3
    assert "KeyError" in results.faults[0].text
    assert "test_campaign.py:" in results.faults[0].text
    assert [each.member.book.name for each in results.tried] == ["a"]


def test_bars_that_cannot_be_read_are_a_fault_with_their_place() -> None:
    """The message is that of the file."""
    results = campaign("a", source=no_bars).run(stop=never, on_progress=nothing)
    assert {fault.text for fault in results.faults} == {"m/BTC_USDT.csv: row 7: not a bar"}


def test_a_worker_that_dies_is_told() -> None:
    """Killed from outside or out of memory: not swallowed, no traceback, and it does not hang."""
    results = campaign("a", "killer", "b", "c").run(jobs=2, stop=never, on_progress=nothing)
    assert not results.is_complete
    assert "a worker process died" in results.faults[-1].text


@pytest.mark.parametrize("jobs", [1, 2])
def test_stopping_leaves_what_was_done(jobs: int) -> None:
    """Stopped after the first book: its runs are there, and the result says that it was stopped."""
    asked = threading.Event()

    def told(news: CampaignProgress) -> None:
        if news.done >= len(RULES):
            asked.set()

    names = [f"book {number}" for number in range(40)]
    results = campaign(*names).run(jobs=jobs, stop=asked.is_set, on_progress=told)
    assert results.is_stopped
    assert not results.is_complete
    assert results.wanted == 40
    assert 1 <= len(results.tried) < 40
    assert results.tried[0].member.book.name == "book 0"


def test_progress_counts_runs_and_ends_at_their_number() -> None:
    """It never goes back."""
    seen: list[CampaignProgress] = []
    campaign("a", "b").run(stop=never, on_progress=seen.append)
    done = [news.done for news in seen]
    assert done == sorted(done)
    assert (done[-1], seen[-1].total) == (6, 6)


def test_a_campaign_can_go_to_another_process() -> None:
    """Partials of module functions and plain data are all that it is made of."""
    import pickle

    whole = campaign("a", source=partial(panel))
    assert pickle.loads(pickle.dumps(whole)).parts == whole.parts
