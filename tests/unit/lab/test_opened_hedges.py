"""Backtests open what a policy declares as a hedge, within its bound, and never where the account is locked."""

from __future__ import annotations

from decimal import Decimal

import pytest

from killswitch.graph.nodes import PolicySet
from killswitch.lab.backtest import Rule
from killswitch.lab.book import BacktestBook
from killswitch.lab.outcome import Run
from tests.backtests import book, market, run, written

HEDGED = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: hedged}}
spec:
  mode: enforce
  scope: {{each: account, match: {{account: [main]}}}}
  max_gap: 10m
  triggers:
    fall: {{signal: equity.drawdown_from_peak, at_least: 4%, on_unknown: hold}}
  stages:
    - name: neutralise
      level: 1
      any: [fall]
      cooldown: 1h
      reset: manual
      actions:
        - lock_trading: {{mode: reduce_only, for: 1h}}
        - neutralise:
            by: notional
            window: 24h
            sample: 1m
            least: 10
            if_unknown: notional
            fallback: nothing
            open: {{account: desk, instrument: {instrument}, at_most: {bound} USDT}}
            unwinding: keep-bitcoin
---
apiVersion: killswitch.dev/v1
kind: Unwinding
metadata: {{name: keep-bitcoin}}
spec: {{spot: {{keep: [BTC]}}}}
"""
LOCKED = """
---
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {{name: locked}}
spec:
  mode: enforce
  scope: {{each: account, match: {{account: [desk]}}}}
  max_gap: 10m
  triggers:
    moved: {{when: 'market.move("ETH_USDT", "10m") < -0.01', on_unknown: hold}}
  stages:
    - name: lock
      level: 1
      any: [moved]
      cooldown: 0s
      reset: {{auto: {{when: 'market.move("ETH_USDT", "10m") > 0.01', for: 0s}}}}
      actions: [{{lock_trading: {{mode: {mode}}}}}]
"""
HELD = Decimal(500)
"""BTC of 50,000 at 100 on a spot account with 100,000, which its unwinding never sells; the desk has 100,000."""
FALL = [*[100.0] * 20, *[90.0] * 5, *[70.0] * 4, 70.01]
"""The last bar gives the symbol a tick of a cent, at which the half spread of 0.01% is rounded."""
ETH = [*[100.0] * 5, *[95.0] * 25]


def policy(bound: int = 50_000, instrument: str = "BTC_USDT", lock: str = "") -> PolicySet:
    locked = LOCKED.format(mode=lock) if lock else ""
    return written(HEDGED.format(bound=bound, instrument=instrument) + locked)


def two_accounts(*, desk: bool = True) -> BacktestBook:
    """The holding, and the account where its hedge is opened."""
    main = book({"BTC_USDT": 50_000}, market="spot").accounts[0]
    other = book({}).accounts[0].model_copy(update={"account": "desk"})
    return BacktestBook(name="two", accounts=(main, other) if desk else (main,))


def tried(policies: PolicySet, held: BacktestBook, rule: Rule = "staged", eth: list[float] = ETH) -> Run:
    return run(policies, market(BTC_USDT=FALL, ETH_USDT=eth), held, rule)


def opened(found: Run) -> dict[tuple[str, str, str], Decimal]:
    """(account, symbol, side) → contracts that every firing opened."""
    return {
        (each.account, each.symbol, each.side): each.contracts for firing in found.firings for each in firing.opened
    }


def test_a_backtest_opens_the_declared_hedge_of_a_holding_that_is_never_sold() -> None:
    """500 BTC are sold short at 90, so that nothing is lost at 70 but what the order costs: 5,000 of 200,000 were lost
    before. The fee is 0.05% of 45,000, and the half spread one or two cents of each."""
    found = tried(policy(), two_accounts())
    assert opened(found) == {("desk", "BTC_USDT", "short"): HELD}
    assert not any(firing.closed for firing in found.firings)
    assert Decimal(195_000) - 33 <= found.final_equity < Decimal(195_000)
    assert Decimal(22) < found.fees < Decimal(23) and Decimal(5) <= found.slippage <= Decimal(10)
    assert found.final_equity == 195_000 - found.fees - found.slippage
    assert tried(policy(), two_accounts(), "none").final_equity == Decimal(185_005)


def test_the_bound_in_money_bounds_the_hedge() -> None:
    """20,000 at 90 are 222.22 BTC, so that 277.78 go on falling by 19.99."""
    found = tried(policy(20_000), two_accounts())
    assert opened(found) == {("desk", "BTC_USDT", "short"): Decimal("222.22")}
    left = (HELD - Decimal("222.22")) * Decimal("19.99")
    assert Decimal(195_000) - left - 25 <= found.final_equity < Decimal(195_000) - left


def test_an_instrument_that_nothing_holds_and_no_signal_names_is_watched() -> None:
    """Its price is known from the bars: ETH at 95 is sold short, 45,000 ÷ 95."""
    found = tried(policy(instrument="ETH_USDT"), two_accounts())
    assert opened(found) == {("desk", "ETH_USDT", "short"): (Decimal(45_000) / 95).quantize(Decimal("0.01"))}


@pytest.mark.parametrize("mode", ["all", "reduce_only"])
def test_nothing_is_opened_on_an_account_that_is_locked_for_every_order(mode: str) -> None:
    """Another policy has locked the desk since ETH fell; a milder lock keeps bots from opening, and not the hedge."""
    found = tried(policy(lock=mode), two_accounts())
    assert bool(opened(found)) is (mode == "reduce_only")
    reasons = [each.reason or "" for each in found.firings if each.policy == "hedged"]
    assert any("the account is locked for every order" in each for each in reasons) is (mode == "all")


def test_a_lock_that_its_policy_has_lifted_keeps_no_hedge_from_being_opened() -> None:
    """ETH rises again before BTC falls, which resets the policy that has locked the desk."""
    eth = [*[100.0] * 3, *[95.0] * 3, *[105.0] * 24]
    assert opened(tried(policy(lock="all"), two_accounts(), eth=eth)) == {("desk", "BTC_USDT", "short"): HELD}


def test_nothing_is_opened_where_the_account_is_unknown_and_the_reason_is_given() -> None:
    """The desk is not in the book."""
    found = tried(policy(), two_accounts(desk=False))
    assert not opened(found)
    assert any("what desk holds of BTC_USDT is unknown" in (each.reason or "") for each in found.firings)


def test_closing_everything_instead_opens_nothing_and_a_cut_in_proportion_opens_the_same() -> None:
    """A close of what is never sold sells nothing of it; a hedge cuts nothing that could be spread."""
    assert not opened(tried(policy(), two_accounts(), "close-all"))
    assert opened(tried(policy(), two_accounts(), "in-proportion")) == opened(tried(policy(), two_accounts()))
