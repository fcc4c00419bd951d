"""Scenarios of the signals of losses and of the whole book, and the cases of failures that are about what a loss is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Balance, Rate, Snapshot
from tests.worlds import START, account, after, fill, flow, position, rules, snapshot
from tests.worlds.firings import Scenario, firings, policy_of
from tests.worlds.signals import SYMBOL, made, minutes, recorded

USDT = "{each: account, match: {currency: USDT}}"
PORTFOLIO = "{each: portfolio, match: {currency: USDT}}"
DOWN = account(None, None, quality="down", reason="timeout")
SILENT = [account("10000", None)] * 4
"""Answers without positions and rows."""


def equities(*values: str, wallet: str = "10000", begin: datetime = START, **more: Any) -> list[Snapshot]:
    """Equity moved by prices alone, each minute."""
    return recorded(minutes(*(made(each, wallet, **more) for each in values), begin=begin))


def answers(*each: AccountSnapshot | Sequence[AccountSnapshot]) -> list[Snapshot]:
    return recorded(minutes(*each))


def booked(*rows: tuple[str, str] | None) -> list[Snapshot]:
    """Flat answers with complete lists each minute, some with a new row (kind and amount)."""
    found = []
    for place, row in enumerate(rows):
        at = after(minutes=place)
        flows = [] if row is None else [flow(f"f{place}", at, row[1], row[0])]
        found.append(account("10000", [], flows=flows, flows_as_of=at, fills_as_of=at))
    return answers(*found)


def held(*legs: tuple[str, str], **more: Any) -> AccountSnapshot:
    """A book of symbols with their notionals, negative for short."""
    found = [
        position(symbol, "short" if notional.startswith("-") else "long", "0", notional=notional.lstrip("-"), **more)
        for symbol, notional in legs
    ]
    return account("10000", found)


def lost_by(first: str, second: str) -> AccountSnapshot:
    """Two longs with these profits, in 10,000 and the profits."""
    profits = (Decimal(first), Decimal(second))
    held = [position(symbol, "long", str(each)) for symbol, each in zip("AB", profits, strict=True)]
    balance = Balance("USDT", Decimal(10_000), wallet=Decimal(10_000), equity=sum(profits, Decimal(10_000)))
    return account(str(10_000 + sum(profits)), held, balances=(balance,), unrealized=sum(profits))


def hedged(lost: str) -> AccountSnapshot:
    """A long that lost what a short gained."""
    return account("10000", [position("A", "long", f"-{lost}"), position("B", "short", lost)])


def margined(equity: str) -> AccountSnapshot:
    """100,000 of a symbol at a price near that of its liquidation, with 1,000 of maintenance margin."""
    near = position("A", "long", "0", notional="100000", mark_price="100", liquidation_price="99")
    return account(equity, [near], maintenance_margin="1000")


def spread(one: str, other: str, elsewhere: str) -> list[AccountSnapshot]:
    """Two accounts at a venue, and one at another."""
    accounts = (("a", one, "paper"), ("c", other, "paper"), ("b", elsewhere, "bank"))
    return [made(equity, equity, name=name, venue=venue) for name, equity, venue in accounts]


def sent(amount: str, by: str) -> list[AccountSnapshot]:
    """The same while an amount has left the first account and not arrived at the second."""
    one, *others = spread("0", "0", "4000")
    assert one.account == by
    return [replace(one, flows=(flow("s", after(minutes=1), f"-{amount}", "transfer"),)), *others]


def settled(profit: str, entry: str, wallet: str) -> AccountSnapshot:
    """A position from `entry` at 20,900, on equity of 10,900."""
    contract = [position(SYMBOL, "long", profit, contracts="1", entry_price=entry, mark_price="20900")]
    return account("10900", contract, unrealized=Decimal(profit), instruments=[rules(SYMBOL)])


def bleeding(*profits: str, wallet: str = "10000", fills: Sequence[Any] = ()) -> list[Snapshot]:
    """Flat, then a position of each profit, six minutes apart."""
    found = [snapshot(START, account(wallet, []))]
    for place, profit in enumerate(profits):
        at = after(minutes=1 + 6 * place)
        new = [each for each in fills if each.at == at]
        realised = sum((each.realized_pnl for each in fills if each.at <= at), Decimal(0))
        equity = str(Decimal(wallet) + Decimal(profit) + realised)
        found.append(snapshot(at, account(equity, [position("A", "long", profit)], fills=new)))
    return found


def moved(at: datetime, equity: str, wallet: str, amount: str) -> AccountSnapshot:
    """An answer with a deposit or a withdrawal of now."""
    kind = "withdrawal" if amount.startswith("-") else "deposit"
    return made(equity, wallet, flows=[flow("m", at, amount, kind)], flows_as_of=at, fills_as_of=at)


def pair(one: str, other: str) -> list[AccountSnapshot]:
    return [made(one, name="a"), made(other, name="b")]


MIDNIGHT = START + timedelta(minutes=-3)
NIGHT = """
apiVersion: killswitch.dev/v1
kind: Session
metadata: {name: night}
spec: {zone: Europe/Berlin, opens: 01:02, closes: 06:00, weekdays: [mon, tue, wed, thu, fri, sat, sun]}
"""
GROUP = """
apiVersion: killswitch.dev/v1
kind: CorrelationGroup
metadata: {name: majors}
spec: {symbols: [A], order: 1}
"""
TAKEN = fill("t", after(minutes=7), "A", "sell", "1", "100", realized_pnl="150", fee="0", fee_currency="USDT")

SCENARIOS: dict[str, Scenario] = {
    "pnl.unrealised": Scenario(
        "signal: pnl.unrealised, at_most: -500 USDT",
        equities("10000", "9501", "9500"),
        answers(settled("900", "20000", "10000"), settled("0", "20900", "10900")),  # a daily settlement
        answers(*SILENT),
        scope=USDT,
    ),
    "pnl.unrealised_share": Scenario(
        "signal: pnl.unrealised_share, at_most: -11%",
        equities("100000", "90200", "90000", wallet="100000"),
        equities("100000", "90200", "90200", wallet="100000"),  # 9.8% of 100,000 are 10.9% of what is left
        answers(*SILENT),
        scope=USDT,
    ),
    "pnl.realised": Scenario(
        "signal: pnl.realised, window: 2m, at_most: -40 USDT",
        booked(None, None, ("fee", "-10"), ("funding", "-30")),
        booked(None, None, ("funding", "-30"), ("rebate", "1"), None),  # funding of 00:00 UTC alone
        answers(*SILENT),
        scope=USDT,
    ),
    "pnl.funding_paid": Scenario(
        "signal: pnl.funding_paid, window: 2m, above: 9.5 USDT",
        booked(None, None, ("funding", "-12.5"), ("funding", "2.9"))[:3],
        booked(None, ("funding", "3"), ("funding", "-12.5"), ("fee", "-100")),  # received 3, paid 12.5
        answers(*SILENT),
        scope=USDT,
    ),
    "pnl.funding_paid_share": Scenario(
        "signal: pnl.funding_paid_share, window: 2m, at_least: 0.1%",
        booked(None, None, ("funding", "-10")),
        booked(None, None, ("funding", "-9.9"), ("withdrawal", "-50")),
        answers(*SILENT),
        scope=USDT,
    ),
    "equity.profit": Scenario(
        "signal: equity.profit, at_least: 2%",
        equities("10000", "10199", "10200"),
        answers(made("10000"), moved(after(minutes=1), "15000", "15000", "5000"), made("15200", "15000")),
        answers(made("10000"), DOWN, DOWN, DOWN),
        scope=USDT,
    ),
    "equity.best_profit": Scenario(
        "when: 'equity.best_profit >= 0.02 && equity.profit < 0.01'",
        equities("10000", "10200", "10150", "10099"),
        equities("10000", "10199", "10050", "9900"),  # it was never 2%
        answers(made("10000"), DOWN, DOWN, DOWN),
        scope=USDT,
    ),
    "equity.given_back": Scenario(
        "when: 'equity.given_back >= 0.5 && equity.best_profit >= 0.01'",
        equities("10000", "10200", "10100"),
        equities("10000", "10001", "9900"),  # all of a profit of 0.01%
        answers(made("10000"), DOWN, DOWN, DOWN),
        scope=USDT,
    ),
    "equity.loss_since": Scenario(
        "signal: equity.loss_since, anchor: utc_day, at_least: 6%",
        equities("10000", "10000", "10000", "9400"),
        equities("10000", "9500", "9500", "9500", "8939.5", begin=MIDNIGHT),  # 5% before and 5.9% after
        equities("10000", "9000", "9000", "9000", begin=after(hours=5)),
        scope=USDT,
    ),
    "equity.loss_since: a session": Scenario(
        "signal: equity.loss_since, anchor: night, at_least: 4%",
        equities("9000", "9900", "10000", "9600"),  # the open at 00:02Z is at 10,000
        equities("10000", "9500", "9500", "9200"),  # lost before the open
        equities("10000", "9000", "9000", "9000", begin=after(hours=5)),
        documents=NIGHT,
        scope=USDT,
    ),
    "equity.loss_sum": Scenario(
        "signal: equity.loss_sum, anchor: utc_day, at_least: 1000 USDT",
        answers(pair("10000", "10000"), pair("10900", "9001"), pair("11000", "9000")),
        answers(pair("10000", "10000"), pair("10800", "9200"), pair("9200", "10800")),  # a hedge: one always loses
        recorded(minutes(*[pair("10000", "9000")] * 4, begin=after(hours=5))),
        scope=PORTFOLIO,
    ),
    "equity.above_floor": Scenario(
        "signal: equity.above_floor, allowed: 2000 USDT, trail: end_of_day, freeze_at: 50100 USDT, at_most: 0 USDT",
        equities("50000", "48500", "48000", wallet="50000"),
        equities("50000", "53000", "50100", "48001", wallet="50000"),  # a high that was never booked
        answers(made("50000"), DOWN, DOWN, DOWN),
        scope=USDT,
    ),
    "equity.above_floor: intraday": Scenario(
        "signal: equity.above_floor, allowed: 2000 USDT, trail: intraday, freeze_at: 50100 USDT, at_most: 0 USDT",
        equities("50000", "53000", "50101", "50100", wallet="50000"),
        answers(made("50000", "50000"), moved(after(minutes=1), "45000", "45000", "-5000"), made("44000", "45000")),
        answers(made("50000"), DOWN, DOWN, DOWN),
        scope=USDT,
    ),
    "equity.loss_from_capital": Scenario(
        "signal: equity.loss_from_capital, capital: 10000 USDT, at_least: 5%",
        equities("9650", "9501", "9500"),
        answers(made("9600", "9600"), moved(after(minutes=1), "4600", "4600", "-5000"), made("4599", "4600")),
        answers(DOWN, DOWN, DOWN, DOWN),
        scope=USDT,
    ),
    "positions.worst_loss": Scenario(
        'when: \'positions.worst_loss("equity") >= 0.08 && equity.drawdown("2m") >= 0.04\'',
        equities("10000", "10000", "10000", "9200"),
        answers(hedged("0"), hedged("0"), hedged("0"), hedged("900")),  # one leg of a hedge
        answers(DOWN, DOWN, DOWN, DOWN),
        scope=USDT,
    ),
    "positions.losing": Scenario(
        'when: \'positions.losing("any", "equity", 0.01) >= 2.0 && equity.drawdown("2m") >= 0.04\'',
        answers(*(lost_by(*each) for each in (("0", "0"), ("0", "0"), ("0", "0"), ("-300", "-300")))),
        answers(*(lost_by(*each) for each in (("0", "0"), ("0", "0"), ("0", "0"), ("-600", "0")))),  # a single one
        answers(DOWN, DOWN, DOWN, DOWN),
        scope=USDT,
    ),
    "positions.worst_bleed": Scenario(
        "signal: positions.worst_bleed, at_least: 500",
        bleeding("0", "-100"),
        bleeding("300", "150", fills=[TAKEN]),  # half of a profit is taken
        answers(*SILENT),
        scope=USDT,
    ),
    "exposure.liquidation_buffer": Scenario(
        "signal: exposure.liquidation_buffer, at_most: 5%",
        answers(margined("7000"), margined("6000")),
        answers(margined("90000"), account("5", [], maintenance_margin="0")),  # near its price, with margin to spare
        answers(*[held(("A", "100"))] * 4),
        scope=USDT,
    ),
    "exposure.liquidation_distance": Scenario(
        "signal: exposure.liquidation_distance, pick: worst, at_most: 3%",
        answers(*(held(("A", "100"), mark_price=mark, liquidation_price="90") for mark in ("100", "92"))),
        answers(account("10000", []), account("10000", [])),
        answers(*SILENT),
        scope=USDT,
    ),
    "exposure.imbalance": Scenario(
        "signal: exposure.imbalance, at_most: -50%",
        answers(held(("A", "100"), ("B", "-100")), held(("A", "100"), ("B", "-300"))),
        answers(held(("A", "300"), ("B", "-100")), held()),
        answers(*SILENT),
        scope=USDT,
    ),
    "exposure.herfindahl": Scenario(
        "signal: exposure.herfindahl, at_least: 51%",
        answers(held(("A", "100"), ("B", "-100")), held(("A", "100"), ("B", "-20"))),
        answers(held(("A", "100"), ("B", "-100")), held()),  # two equal ones have 1/2
        answers(*SILENT),
        scope=USDT,
    ),
    "exposure.group_share": Scenario(
        "signal: exposure.group_share, group: majors, at_least: 60%",
        answers(held(("A", "100"), ("B", "100")), held(("A", "150"), ("B", "-100"))),
        answers(held(("B", "100")), held()),
        answers(*SILENT),
        documents=GROUP,
        scope=USDT,
    ),
    "exposure.group_net": Scenario(
        "signal: exposure.group_net, group: majors, at_least: 120 USDT",
        answers(held(("A", "100"), ("B", "100")), held(("A", "120"), ("B", "-100"))),
        answers(held(("A", "-150"), ("B", "900")), held()),
        answers(*SILENT),
        documents=GROUP,
        scope=USDT,
    ),
    "venue.equity_share": Scenario(
        "signal: venue.equity_share, venue: paper, at_most: 20%, confirm: 2m",
        answers(*[spread("1000", "0", "4000")] * 3),
        answers(
            spread("4000", "0", "4000"), sent("4000", "a"), spread("0", "4000", "4000"), spread("0", "4000", "4000")
        ),
        answers(*[[DOWN]] * 4),
        scope=PORTFOLIO,
    ),
}


# Cases of failures


def test_d8_open_losses_count() -> None:
    """Nothing is closed, so that closed trades show no loss; 6% are lost, by what is open and by the unit value."""
    recording = equities("10000", "9700", "9400")
    for trigger in (
        "signal: pnl.unrealised, at_most: -600 USDT",
        "signal: equity.loss_since, anchor: utc_day, at_least: 6%",
        "signal: equity.loss_from_capital, capital: 10000 USDT, at_least: 6%",
    ):
        assert firings(policy_of(trigger, scope=USDT), recording) == [after(minutes=2)]
    closed = [account("10000", [], flows_as_of=at, fills_as_of=at) for at in (START, after(minutes=1))]
    lost = [
        made(equity, flows_as_of=after(minutes=at), fills_as_of=after(minutes=at))
        for at, equity in ((2, "10000"), (3, "9400"))
    ]
    realised = "signal: pnl.realised, window: 1m, below: 0 USDT"
    assert firings(policy_of(realised, scope=USDT), answers(*closed, *lost)) == []


def test_d10_what_ten_per_cent_means_is_in_the_policy() -> None:
    """From 100,000 to 120,000 before midnight, 110,000 at it and 107,000 after it.

    −10.8% from the peak and −2.7% since midnight; of the start and of a capital of 100,000 nothing is lost. Of a
    capital of 118,000 it is 15.3% at the first observation.
    """
    recording = equities("100000", "120000", "110000", "107000", begin=MIDNIGHT + timedelta(minutes=1), wallet="100000")
    fired = {
        trigger: bool(firings(policy_of(f"signal: {trigger}, at_least: 9%", scope=USDT), recording))
        for trigger in (
            "equity.drawdown_from_peak",
            "equity.loss_from_start",
            "equity.loss_since, anchor: utc_day",
            "equity.loss_from_capital, capital: 100000 USDT",
        )
    }
    assert list(fired.values()) == [True, False, False, False]
    capital = policy_of("signal: equity.loss_from_capital, capital: 118000 USDT, at_least: 15%", scope=USDT)
    assert firings(capital, recording) == [recording[0].as_of]


LEG = 'positions.worst_loss("equity") >= 0.08'
FALLEN = 'equity.drawdown("2m") >= 0.04'


def losing_leg(market: str = "swap") -> list[Snapshot]:
    """One leg loses 9% of equity, and the other gains 8.5%: the book lost 0.5%."""
    found = []
    for loss, gain in (("0", "0"), ("0", "0"), ("-450", "425"), ("-900", "850")):
        equity = str(10_000 + Decimal(loss) + Decimal(gain))
        legs = [position("BTC/USDT:USDT", "short", loss), position("BTC/USDT:USDT-261225", "long", gain)]
        found.append(account(equity, legs, market=market))
    return answers(*found)


@pytest.mark.parametrize("case", ["d13", "d19"])
def test_d13_d19_one_leg_of_a_hedge_does_not_close_the_book(case: str) -> None:
    """9% of equity on one leg (of the short of a carry, too) while the book lost 0.5%.

    The signal shows it and alone would close both legs; with a fall of the scope's own equity, as it is to be used, it
    does not, and does where the book has fallen as well.
    """
    recording = losing_leg("future" if case == "d19" else "swap")
    assert firings(policy_of(f"when: '{LEG}'", scope=USDT), recording) == [after(minutes=3)]
    used = policy_of(f"when: '{LEG} && {FALLEN}'", scope=USDT)
    assert firings(used, recording) == []
    assert firings(used, equities("10000", "10000", "10000", "9200")) == [after(minutes=3)]


def test_d22_a_fall_of_the_accounts_own_currency_is_a_loss_in_the_reference_currency() -> None:
    """Equity stays 10,000 USDT; a USDT falls from 1 to 0.93 USD. In USDT nothing is lost."""
    rates = [("1", 0), ("0.99", 1), ("0.93", 2)]
    found = [account("10000", [], rates=(Rate("USD", Decimal(price)),)) for price, _ in rates]
    trigger = "signal: equity.loss_since, anchor: utc_day, at_least: 6%"
    in_usd = policy_of(trigger, scope="{each: portfolio, match: {}}", spec="reference: {currency: USD, rates_from: 1}")
    assert firings(in_usd, answers(*found)) == [after(minutes=2)]
    assert firings(policy_of(trigger, scope=USDT), answers(*found)) == []
    capital = "signal: equity.loss_from_capital, capital: 10000 USD, at_least: 7%"
    in_usd = policy_of(capital, scope="{each: portfolio, match: {}}", spec="reference: {currency: USD, rates_from: 1}")
    assert firings(in_usd, answers(*found)) == [after(minutes=2)]
