"""Campaigns: every book runs under every rule, in one or several processes, and one failure stops no other run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial

import pytest
from msgspec import Struct

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


def make_price_matrix() -> PriceMatrix:
    return PriceMatrix(calm_bars(1, 5))


def unreadable_bars() -> PriceMatrix:
    raise BarsError("m/BTC_USDT.csv: row 7: not a bar")


class FakeBacktest(Struct, frozen=True):
    """Returns a run at once; the names `broken`, `defect` and `killer` fail as they say."""

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


def campaign(*names: str, source: Callable[[], PriceMatrix] = make_price_matrix) -> Campaign:
    parts = tuple(CampaignPart("m", FamilyBook("given", BOOK.model_copy(update={"name": name}))) for name in names)
    return Campaign({"m": source}, parts, RULES, FakeBacktest())


def never_stop() -> bool:
    return False


def ignore_progress(_: CampaignProgress) -> None:
    pass


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_book_is_run_under_every_rule_in_order(jobs: int) -> None:
    """With one process and with two. A book that fails under one rule is reported beside the results."""
    results = campaign("a", "broken", "ccc").run(jobs=jobs, stop=never_stop, on_progress=ignore_progress)
    assert [(each.member.book.name, [run.rule for run in each.runs]) for each in results.tried] == [
        ("a", list(RULES)), ("broken", [rule for rule in RULES if rule != "none"]), ("ccc", list(RULES)),
    ]  # fmt: skip
    (fault,) = results.faults
    assert (fault.book, fault.rule, fault.text) == ("broken", "none", "BTC_USDT: notional 5 is less than a lot")
    assert (results.is_complete, results.is_stopped, results.wanted) == (False, False, 3)


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_are_complete_when_every_run_succeeds(jobs: int) -> None:
    """With one process and with two: no fault, and no run is missing."""
    results = campaign("a", "bb").run(jobs=jobs, stop=never_stop, on_progress=ignore_progress)
    assert (results.is_complete, results.wanted, results.faults) == (True, 2, ())


def test_a_defect_is_reported_with_its_place() -> None:
    """It affects no other results, and is not reported as a mistake of the user."""
    results = campaign("defect", "a").run(stop=never_stop, on_progress=ignore_progress)
    assert len(results.faults) == 3
    assert "KeyError" in results.faults[0].text
    assert "test_campaign.py:" in results.faults[0].text
    assert [each.member.book.name for each in results.tried] == ["a"]


def test_unreadable_bars_are_a_fault_with_their_place() -> None:
    """The message is that of the file."""
    results = campaign("a", source=unreadable_bars).run(stop=never_stop, on_progress=ignore_progress)
    assert {fault.text for fault in results.faults} == {"m/BTC_USDT.csv: row 7: not a bar"}


def test_the_death_of_a_worker_process_is_reported() -> None:
    """Killed from outside or out of memory: the death is reported, with no traceback and no hang."""
    results = campaign("a", "killer", "b", "c").run(jobs=2, stop=never_stop, on_progress=ignore_progress)
    assert not results.is_complete
    assert "a worker process died" in results.faults[-1].text


@pytest.mark.parametrize("jobs", [1, 2])
def test_stopping_keeps_finished_runs(jobs: int) -> None:
    """Stopped after the first book: its runs are kept, and the result is marked as stopped."""
    stop_requested = threading.Event()

    def on_progress(progress: CampaignProgress) -> None:
        if progress.done >= len(RULES):
            stop_requested.set()

    names = [f"book {number}" for number in range(40)]
    results = campaign(*names).run(jobs=jobs, stop=stop_requested.is_set, on_progress=on_progress)
    assert results.is_stopped
    assert not results.is_complete
    assert results.wanted == 40
    assert 1 <= len(results.tried) < 40
    assert results.tried[0].member.book.name == "book 0"


def test_progress_counts_runs_and_ends_at_their_number() -> None:
    """It never decreases."""
    seen: list[CampaignProgress] = []
    campaign("a", "b").run(stop=never_stop, on_progress=seen.append)
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert (done[-1], seen[-1].total) == (6, 6)


def test_a_campaign_can_be_pickled() -> None:
    """It consists of partials of module functions and plain data."""
    import pickle

    whole = campaign("a", source=partial(make_price_matrix))
    assert pickle.loads(pickle.dumps(whole)).parts == whole.parts
