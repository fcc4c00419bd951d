"""Backtests move margin between the accounts of a book, as a live run does, and a transfer is no profit and no loss."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.lab.backtest import Rule, backtest
from killswitch.lab.bars import BarTable
from killswitch.lab.book import BacktestBook, BookAccount, BookPosition
from killswitch.lab.outcome import FiredTransfer, Run
from killswitch.lab.price_matrix import PriceMatrix
from killswitch.market.paper import PaperMarket
from killswitch.market.rules import MarketRules
from killswitch.model.clock import Clock
from killswitch.model.venue import SentTransfer, TransferFate, VenueError
from killswitch_paper.local import LocalVenue
from tests.backtests import market, run, series, written

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: margin}}
spec:
  mode: {mode}
  scope: {{each: account, match: {{account: [main]}}}}
  max_gap: 48h
  triggers:
    high: {{signal: exposure.margin_ratio, at_least: 50%, on_unknown: hold}}
  stages:
    - name: top-up
      level: 1
      any: [high]
      cooldown: 0s
      reset: {{auto: {{when: 'exposure.margin_ratio < 0.4', for: 0s}}}}
      actions:
        - lock_trading: {{mode: reduce_only}}
        - top_up_margin: {{from: treasury, to_ratio: 30%, at_most: {bound} USDT, keep: 500 USDT}}
"""
AT_A_LOSS = {
    "signal: exposure.margin_ratio, at_least: 50%": "signal: equity.drawdown_from_peak, at_least: 50%",
    "exposure.margin_ratio < 0.4": "equity.drawdown_from_peak < 0.2",
}
"""The same policy by a signal that is looked ahead, so that quiet bars are skipped: at 90 half of the 1,000 is lost."""
OF_THE_SOURCE = """
---
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: of-the-source}
spec:
  mode: enforce
  scope: {each: account, match: {account: [treasury]}}
  max_gap: 48h
  triggers:
    fallen: {signal: equity.drawdown_from_peak, at_least: 1%, on_unknown: hold}
  stages:
    - {name: o, level: 1, any: [fallen], cooldown: 0s, reset: manual, actions: [{close: {side: both, fraction: 100%}}]}
"""
RULES = MarketRules(maintenance=Decimal("0.05"))
NEEDED = Decimal("333.33333334")
"""50 contracts bought at 100 with 1,000: at 88 the equity is 400, and 5% of 4,400 is 220, which is 30% of 733.33…."""
FALL = [100.0] * 8 + [88.0] * 4
DEEPER = [*FALL, *[82.0] * 4, *[100.0] * 8]
"""At 82 the equity of 100 is below the maintenance margin of 205, and 433.33 is above it."""


def policy(bound: str = "400", mode: str = "enforce") -> PolicySet:
    """Margin from the treasury at a ratio of 50%."""
    return written(POLICY.format(bound=bound, mode=mode))


def at_a_loss(bound: str = "400") -> PolicySet:
    """Margin from the treasury after the loss of half of the equity."""
    text = POLICY.format(bound=bound, mode="enforce")
    for before, after in AT_A_LOSS.items():
        text = text.replace(before, after)
    return written(text)


def account(name: str, equity: int, *positions: BookPosition, currency: str = "USDT") -> BookAccount:
    """One account of a book."""
    return BookAccount(account=name, market="swap", currency=currency, equity=Decimal(equity), positions=positions)


def book(free: int | None = 5000) -> BacktestBook:
    """50 contracts at 10 times their margin, and a treasury without positions; None: there is no treasury."""
    held = BookPosition(symbol="A", side="long", notional=Decimal(5000), leverage=Decimal(10))
    accounts = (account("main", 1000, held), *(() if free is None else (account("treasury", free),)))
    return BacktestBook(name="of two accounts", accounts=accounts)


def tried(prices: list[float], policies: PolicySet, held: BacktestBook, rule: Rule = "staged", **more: Any) -> Run:
    """The run of the book through these prices."""
    return run(policies, market(A=prices), held, rule, rules=RULES, **more)


def transfers(found: Run) -> list[FiredTransfer]:
    return [each.transfer for each in found.firings if each.transfer is not None]


def test_a_backtest_moves_the_amount_that_brings_the_margin_ratio_down() -> None:
    """220 of maintenance margin on 400 + 333.33333334 is 30%; the stage is reset, and nothing moves again."""
    found = tried(FALL, policy(), book())
    assert transfers(found) == [FiredTransfer("treasury", "main", "USDT", NEEDED, "moved")]
    (firing,) = found.firings
    assert "move 333.33333334 USDT of margin from treasury to main" in firing.effects
    assert (firing.closed, firing.opened, firing.orders, firing.ended) == ((), (), 0, None)


def test_a_transfer_between_two_accounts_of_the_book_is_no_profit_and_no_loss() -> None:
    """Every sum of the run is that without any protection: 600 of 6,000 were lost, and nothing was traded."""
    staged, none = (tried(FALL, policy(), book(), rule) for rule in ("staged", "none"))
    assert transfers(staged)
    assert staged.final_equity == Decimal(5400)
    assert staged.worst_drawdown == Decimal("0.1")
    assert replace(staged, rule="", firings=(), notices=0) == replace(none, rule="", firings=(), notices=0)


def test_money_that_leaves_an_account_is_no_fall_of_its_equity() -> None:
    """333.33 of 5,000 are 6.7%, where the policy of the treasury fires at 1%."""
    found = tried(FALL, written(POLICY.format(bound="400", mode="enforce") + OF_THE_SOURCE), book())
    assert transfers(found)
    assert {each.policy for each in found.firings} == {"margin"}


def test_a_position_that_got_margin_is_not_liquidated_where_it_would_have_been() -> None:
    """At 82 the maintenance margin is 205 on 433.33; at 100 again everything is there."""
    staged, none = (tried(DEEPER, policy(), book(), rule) for rule in ("staged", "none"))
    assert none.liquidations and none.final_equity < Decimal(5900)
    assert not staged.liquidations and staged.final_equity == Decimal(6000)


@pytest.mark.parametrize(
    ("policies", "held", "why"),
    [
        (policy("333"), book(), "333.00 USDT is left of the bound"),
        (policy(), book(800), "treasury can give 300.00 USDT"),
        (policy(), book(None), "treasury is not in the snapshot"),
    ],
    ids=["the bound of a day", "what the source keeps", "an unknown source"],
)
def test_nothing_is_moved_beyond_a_bound_or_from_what_is_unknown_and_the_reason_is_given(
    policies: PolicySet, held: BacktestBook, why: str
) -> None:
    """The lock is written, equity stays with the accounts, and the run without skipping says the same."""
    found = tried(FALL, policies, held)
    assert not transfers(found)
    assert [why in (each.reason or "") for each in found.firings] == [True]
    assert any("lock account/main" in each for each in found.firings[0].effects)
    assert found == tried(FALL, policies, held, is_skipping=False)


def test_nothing_is_moved_where_the_ratio_does_not_reach_its_limit_or_the_policy_observes() -> None:
    """At 90 the ratio is 225 ÷ 500 = 45%."""
    assert not tried([100.0] * 8 + [90.0] * 8, policy(), book()).firings
    assert not transfers(tried(FALL, policy(mode="observe"), book()))
    assert not tried(DEEPER, policy(), book(), "none").firings


@pytest.mark.parametrize("rule", ["close-all", "in-proportion"])
def test_a_stage_that_only_moves_margin_is_the_same_under_the_alternatives(rule: Rule) -> None:
    """It closes nothing that could be closed wholly, or in proportion."""
    staged, alternative = (tried(DEEPER, policy(), book(), each) for each in ("staged", rule))
    assert transfers(alternative) == transfers(staged) != []
    assert alternative.final_equity == staged.final_equity


def test_the_second_transfer_takes_what_is_left_of_the_bound() -> None:
    """At 82 the ratio is 205 ÷ 433.33 = 47%, at 81 202.5 ÷ 383.33 = 53%: 291.67 are needed, 66.67 of 400 are left."""
    found = tried([*FALL, *[82.0] * 4, *[81.0] * 4], policy(), book())
    assert [each.amount for each in transfers(found)] == [NEEDED]
    assert "66.67 USDT is left of the bound" in (found.firings[-1].reason or "")
    both = tried([*FALL, *[82.0] * 4, *[81.0] * 4], policy("700"), book())
    # 202.5 ÷ 30% = 675, and 1,000 − 50 × 19 + 333.33333334 is there
    assert [each.amount for each in transfers(both)] == [NEEDED, Decimal(675) - Decimal(50) - NEEDED]


class Slow(LocalVenue):
    """An account whose requests to move money are not answered, and are made when they are looked up for the third
    time."""

    def __init__(self, market: PaperMarket, account: str, clock: Clock) -> None:
        super().__init__(account, market, clock)
        assert self.transfers is not None
        make, self._asked = self.transfers.send, 0

        async def lose(_to: str, _amount: Decimal, _transfer: str) -> None:
            raise VenueError("no answer")

        async def find(sent: SentTransfer) -> TransferFate:
            self._asked += 1
            if self._asked < 3:
                return "open"
            await make(sent.to, sent.amount, sent.id)
            return "moved"

        self.transfers = replace(self.transfers, send=lose, find=find)


class Fixed(LocalVenue):
    """An account whose adapter moves no money."""

    def __init__(self, market: PaperMarket, account: str, clock: Clock) -> None:
        super().__init__(account, market, clock)
        self.transfers = None


def test_no_bar_is_skipped_before_the_money_has_left_its_source() -> None:
    """The request is lost, and made two quiet bars later. The source then has 2,566.67 with 200 contracts bought at
    100: at a low of 91.70 that is below its maintenance margin of 917, which the 2,900 before were not."""
    prices = [*[100.0] * 80, 88.0, *[100.0] * 60]
    lows = [*[100.0] * 100, 91.7, *[100.0] * 40]
    matrix = PriceMatrix(BarTable("wick", [series("A", prices), series("B", [100.0] * 141, low=lows)]))
    other = BookPosition(symbol="B", side="long", notional=Decimal(20_000), leverage=Decimal(10))
    held = BacktestBook(name="both", accounts=(book().accounts[0], account("treasury", 2900, other)))
    runs = [
        asyncio.run(backtest(at_a_loss(), matrix, held, rule="staged", venue=Slow, rules=RULES, is_skipping=passing))
        for passing in (True, False)
    ]
    assert runs[0] == runs[1]
    assert [(each.amount, each.status) for each in transfers(runs[0])] == [(NEEDED, "moved")]
    assert {each.account for each in runs[0].liquidations} == {"treasury"}
    assert not tried_without(matrix, held).liquidations


def tried_without(matrix: PriceMatrix, held: BacktestBook) -> Run:
    """The run without any protection, in which nothing moves."""
    return run(policy(), matrix, held, "none", rules=RULES)


def test_a_transfer_that_no_adapter_makes_is_refused_and_counted_as_a_notice() -> None:
    """Nothing has moved, and the firing says so."""
    tested = backtest(policy(), market(A=FALL), book(), rule="staged", venue=Fixed, rules=RULES)
    found, moved = asyncio.run(tested), tried(FALL, policy(), book())
    assert [each.status for each in transfers(found)] == ["refused"]
    assert found.final_equity == moved.final_equity == Decimal(5400)
    assert found.notices > moved.notices


def test_quiet_bars_around_a_transfer_are_skipped() -> None:
    """Otherwise the comparisons here would test nothing."""
    ticked: list[int] = []
    prices = [*[100.0] * 80, *[88.0] * 3, *[100.0] * 80]
    assert transfers(tried(prices, at_a_loss(), book(), on_bars=ticked.append))
    assert sum(ticked) == len(prices) and len(ticked) < len(prices) / 3


MOVES = st.lists(st.tuples(st.integers(1, 40), st.integers(70, 130)), min_size=1, max_size=6)
"""Bars, and the price in them."""


@settings(max_examples=40, deadline=None)
@given(MOVES, st.integers(100, 3000), st.integers(500, 6000))
def test_whatever_is_moved_no_money_appears_or_disappears_and_no_bar_is_skipped_that_matters(
    moves: list[tuple[int, int]], bound: int, free: int
) -> None:
    """Without skipping the run is the same to the last digit. Without a liquidation, prices alone decide."""
    flat = [100.0] * 8 + [float(price) for bars, price in moves for _ in range(bars)]
    prices = [round(price + (number % 3) / 100, 2) for number, price in enumerate(flat)]
    policies, held = at_a_loss(str(bound)), book(free)
    fast, slow = (tried(prices, policies, held, is_skipping=passing) for passing in (True, False))
    assert fast == slow
    assert sum(each.amount for each in transfers(fast)) <= bound
    if not fast.liquidations:
        assert fast.final_equity == 1000 + free + 50 * (Decimal(str(prices[-1])) - 100)
