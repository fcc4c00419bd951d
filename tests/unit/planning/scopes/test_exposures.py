"""Exposure and P&L of the book, by account, strategy and asset: sums by hand, in one currency, and what is unknown."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from killswitch.operations.pages.status_sections import exposure_table
from killswitch.planning.exposures import UNOWNED, Exposures, OpenExposure
from killswitch.planning.interpreter import Interpreter
from killswitch.render.document import Page
from killswitch.render.document import text as page_text
from tests.backtests import written
from tests.worlds import START, account, after, fill, position, rules, snapshot

POLICY = """apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: all}
spec:
  mode: observe
  scope: {each: portfolio, match: {}}
  max_gap: 10m
  reference: {currency: USDT, otherwise: {USDC: 2}}
  triggers: {it: {signal: equity.drawdown, window: 15m, at_least: 5%, on_unknown: hold}}
  stages: [{name: a, level: 1, any: [it], cooldown: 1m, reset: manual, actions: []}]
---
apiVersion: killswitch.dev/v1
kind: Strategy
metadata: {name: grid}
spec: {match: {}, symbols: BTC_USDT, order_ids: grid-}
"""


def exposures(*minutes: Any, policy: str = POLICY) -> Exposures:
    """After snapshots of these accounts, a minute apart."""
    interpreter = Interpreter(written(policy))
    for minute, accounts in enumerate(minutes):
        interpreter.tick(snapshot(after(minutes=minute), *accounts))
    return interpreter.exposures()


def two_accounts(equity: str = "1000", **second: Any) -> tuple[Any, Any]:
    """300 of bitcoin long in one account, 100 short in the other, and 40 of ether in USDC, of which one is 2 USDT."""
    first = account(
        equity, [position("BTC_USDT", "long", "-30", contracts="3", notional="300", mark_price="100")],
        name="a", instruments=[rules("BTC_USDT")],
    )  # fmt: skip
    held = [
        position("BTC_USDT", "short", "5", contracts="1", notional="100", mark_price="100"),
        position("ETH_USDT", "long", "1", contracts="1", notional="40", mark_price="40"),
    ]
    return first, account("500", held, name="b", currency="USDC", **second)


def line(found: Exposures, of: str, name: str) -> tuple[Decimal | None, Decimal | None, Decimal | None]:
    (one,) = [each for each in found.parts if (each.of, each.name) == (of, name)]
    return one.gross, one.net, one.unrealised


@pytest.mark.parametrize(
    ("of", "name", "gross", "net", "unrealised"),
    [
        ("portfolio", "portfolio", 580, 180, -18),  # 300 + 2 × 140; 300 − 2 × 100 + 2 × 40; −30 + 2 × 6
        ("account", "a", 300, 300, -30),
        ("account", "b", 280, -120, 12),
        ("asset", "BTC", 500, 100, -20),
        ("asset", "ETH", 80, 80, 2),
        ("strategy", "grid", 500, 100, -20),
    ],
)
def test_each_part_is_summed_in_the_reference_currency(
    of: str, name: str, gross: int, net: int, unrealised: int
) -> None:
    """The declared symbol is the strategy's on both accounts; USDC are converted at the declared rate of 2."""
    found = exposures(two_accounts(), (*two_accounts(),))
    if (of, name) == ("strategy", "grid"):  # ether has an unknown owner, because it was held at the first snapshot
        assert line(found, of, name) == (None, None, None)
        found = exposures(two_accounts(), policy=POLICY.replace(", order_ids: grid-", ""))
    assert found.currency == "USDT"
    assert line(found, of, name) == (gross, net, unrealised)


def test_what_no_strategy_owns_is_a_part_of_its_own() -> None:
    """The strategy is identified by its symbol alone, so that ether belongs to nobody."""
    found = exposures(two_accounts(), policy=POLICY.replace(", order_ids: grid-", ""))
    assert line(found, "strategy", UNOWNED) == (80, 80, 2)


def test_the_profit_of_the_portfolio_is_a_fraction_of_its_start() -> None:
    """From 2,000 to 1,900 it lost 5%: 1,000 − 100 and 2 × 500."""
    before = account("1000", [], name="a"), account("500", [], name="b", currency="USDC")
    fallen = position("BTC_USDT", "long", "-100", contracts="1", notional="900", mark_price="900", entry_price="1000")
    held = position("BTC_USDT", "long", "0", contracts="1", notional="1000", mark_price="1000", entry_price="1000")
    known = [rules("BTC_USDT")]
    opened = account("1000", [held], name="a", instruments=known), before[1]
    found = exposures(opened, (account("900", [fallen], name="a"), before[1]))
    assert found.profit == Decimal("-0.05")


def test_without_a_policy_of_the_portfolio_its_profit_is_unknown() -> None:
    """A sum of equity would count deposits as profit."""
    assert exposures(two_accounts(), policy=POLICY.replace("each: portfolio", "each: venue")).profit is None


def test_what_cannot_be_read_is_unknown_with_its_reason() -> None:
    """The account, and every sum that it is in; the other account is known."""
    down = two_accounts(quality="down", reason="no answer")
    found = exposures(two_accounts(), down)
    assert line(found, "portfolio", "portfolio") == (None, None, None)
    assert line(found, "account", "a") == (300, 300, -30)
    assert [each.unknown for each in found.parts if each.name == "b"] == ["b is down: no answer"]
    assert not [each for each in found.parts if each.of == "asset"]


def test_the_table_shows_every_part_and_what_is_unknown() -> None:
    """Amounts with two decimals; unknown is written as such."""
    parts = (
        OpenExposure("portfolio", "portfolio", Decimal(580), Decimal(180), Decimal(-18)),
        OpenExposure("account", "b", unknown="b is down: no answer"),
    )
    page = Page("Status", sections=tuple(exposure_table(Exposures(START, "USDT", parts, Decimal("-0.05")))))
    text = page_text(page)
    assert "Exposure and P&L in USDT as of 2024-01-01T00:00:00Z (profit of the portfolio: -5.00% of its start" in text
    assert "580.00" in text and "-18.00" in text and "b is down: no answer" in text
    assert tuple(exposure_table(None)) == ()


def test_a_large_book_is_summed_again_after_five_seconds() -> None:
    """More than 2,000 positions: a tick two seconds later shows the sums of before, one of five seconds its own."""
    interpreter = Interpreter(written(POLICY))
    gross = []
    for seconds, notional in ((0, "1"), (2, "2"), (5, "3")):
        held = [position(f"C{n}_USDT", "long", "0", notional=notional) for n in range(2001)]
        interpreter.tick(snapshot(after(seconds=seconds), account("100000", held)))
        gross.append(line(interpreter.exposures(), "portfolio", "portfolio")[0])
    assert gross == [2001, 2001, 6003]


def traded(minute: int, client: str | None, pnl: str = "10") -> Any:
    """A sale of what the strategy has bought, with 10 realised and a fee of 1, in an account in USDC."""
    sale = fill("1", after(minutes=minute), "BTC_USDT", "sell", "1", "100", client_order_id=client, realized_pnl=pnl,
                fee="1", fee_currency="USDC")  # fmt: skip
    at = after(minutes=minute)
    return account("500", [], name="b", currency="USDC", fills=[sale], fills_as_of=at, observed_at=at)


def test_what_was_realised_is_converted_and_every_part_has_it() -> None:
    """9 USDC after the fee are 18 USDT, of the strategy, its account, the asset that is not held any more, and all."""
    held = position("BTC_USDT", "long", "9", contracts="1", notional="100", mark_price="100")
    found = exposures((account("500", [held], name="b", currency="USDC"),), (traded(1, "grid-7"),))
    (grid,) = [each for each in found.parts if each.name == "grid"]
    assert (grid.realised, grid.realised_unknown, grid.realised_since) == (18, None, START)
    assert {(each.of, each.name): each.realised for each in found.parts} == {
        ("portfolio", "portfolio"): 18, ("account", "b"): 18, ("strategy", "grid"): 18, ("strategy", UNOWNED): 0,
        ("asset", "BTC"): 18,
    }  # fmt: skip
    assert {each.realised_since for each in found.parts} == {START}
    (shown,) = exposure_table(found)
    text = page_text(Page(None, sections=(shown,)))
    assert "realised P&L" in text
    assert "18.00" in text


def test_what_a_strategy_realised_is_unknown_with_the_reason() -> None:
    """The venue states a number that is none: the page and the record say which fill."""
    held = position("BTC_USDT", "long", "9", contracts="1", notional="100", mark_price="100")
    found = exposures((account("500", [held], name="b", currency="USDC"),), (traded(1, "grid-7", pnl="NaN"),))
    (grid,) = [each for each in found.parts if each.name == "grid"]
    assert grid.realised is None
    assert grid.realised_unknown == "the realised P&L of fill 1 is not a usable number"
    assert "not a usable number" in page_text(Page(None, sections=tuple(exposure_table(found))))


def test_an_asset_whose_fill_is_unknown_leaves_the_others_known() -> None:
    """The portfolio and the account are unknown with it; the other account, and its asset, are known."""
    at = after(minutes=1)
    sale = fill("2", at, "ETH_USDT", "sell", "1", "50", realized_pnl="7", fee="2", fee_currency="USDT")
    first = account("1000", [], name="a", fills=[sale], fills_as_of=at, observed_at=at)
    empty = (account("1000", [], name="a"), account("500", [], name="b", currency="USDC"))
    found = exposures(empty, (first, traded(1, None, pnl="NaN")), policy=POLICY.split("---", maxsplit=1)[0])
    assert {(each.of, each.name): each.realised for each in found.parts} == {
        ("portfolio", "portfolio"): None, ("account", "a"): 5, ("account", "b"): None, ("asset", "BTC"): None,
        ("asset", "ETH"): 5,
    }  # fmt: skip
    assert {each.realised_unknown for each in found.parts} == {
        None, "the realised P&L of fill 1 is not a usable number",
    }  # fmt: skip


def test_what_a_down_account_realised_is_unknown_and_so_is_the_sum() -> None:
    """Without the list of fills nothing is 0."""
    known = account("1000", [], name="a", fills=[], fills_as_of=after(minutes=1), observed_at=after(minutes=1))
    down = account(None, None, name="b", currency="USDC", quality="down", reason="no answer")
    found = exposures((account("1000", [], name="a"), account("500", [], name="b", currency="USDC")), (known, down))
    by_name = {each.name: (each.realised, each.realised_unknown) for each in found.parts if each.of != "strategy"}
    assert by_name["a"] == (0, None)
    assert by_name["b"] == (None, "the fills of b are unknown")
    assert by_name["portfolio"] == (None, "the fills of b are unknown")


def test_a_book_that_an_older_version_stored_shows_what_it_has() -> None:
    """Realised P&L of strategies only: other parts have a dash, and nothing is called unknown that was not asked."""
    parts = (
        OpenExposure("account", "b", Decimal(1), Decimal(1), Decimal(2)),
        OpenExposure("strategy", "grid", Decimal(1), Decimal(1), Decimal(2), realised=Decimal(3)),
    )
    lines = page_text(Page(None, sections=tuple(exposure_table(Exposures(START, "USDT", parts))))).splitlines()
    assert [line.split()[-1] for line in lines if line.split()[:1] in (["account"], ["strategy"])] == ["-", "3.00"]
