"""Scenarios of the signals of equity, of its unexplained changes, and of the side that lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from killswitch.model.snapshot import AccountSnapshot, Snapshot
from tests.worlds import account, after, flow, position, rules, snapshot
from tests.worlds.firings import Scenario
from tests.worlds.signals import made, minutes, recorded

USDT = "{each: account, match: {currency: USDT}}"
PORTFOLIO = "{each: portfolio, match: {currency: USDT}}"
DOWN = account(None, None, quality="down", reason="timeout")


def equities(*values: str) -> list[Snapshot]:
    """Equity of 10,000 moved by prices alone, each minute."""
    return recorded(minutes(*(made(each) for each in values)))


def withdrawn(*after_it: str) -> list[Snapshot]:
    """10,000, of which 4,000 are withdrawn at minute 1, and then the equity that prices make of the rest."""
    paid = [flow("w", after(minutes=1), "-4000")]
    rest = [made(each, "6000") for each in ("6000", *after_it)]
    return recorded(minutes(made("10000"), replace(rest[0], flows=tuple(paid)), *rest[1:]))


UNREAD = recorded(minutes(made("10000"), DOWN, DOWN, DOWN))
"""It held a position, whose price nobody else shows."""


def flat(equity: str, name: str) -> AccountSnapshot:
    return account(equity, [], name=name)


def without(name: str) -> AccountSnapshot:
    return replace(DOWN, account=name)


def cash(*equities_: str, flows: Sequence[tuple[int, str]] = (), **more: Any) -> list[Snapshot]:
    """Equity of an account that holds one position whose P&L does not change; a row is seen in its minute."""
    still = [position("A", "long", "0", notional="100")]
    found = []
    for minute, equity in enumerate(equities_):
        rows = [flow(f"f{at}", after(minutes=1), amount) for at, amount in flows if at == minute]
        now = after(minutes=minute)
        found.append(snapshot(now, account(equity, still, flows=rows, flows_as_of=now, fills_as_of=now, **more)))
    return found


def sides(*profits: tuple[str, str]) -> list[Snapshot]:
    """The P&L of a long and of a short, each minute."""
    found = []
    for one, other in profits:
        legs = [position("A", "long", one), position("B", "short", other)]
        found.append(account(str(10_000 + int(one) + int(other)), legs))
    return recorded(minutes(*found))


PAIR = """apiVersion: killswitch.dev/v1
kind: HedgeGroup
metadata: {name: pair}
spec:
  legs:
    - {account: main, symbol: A, ratio: 1}
    - {account: main, symbol: B, ratio: 1}
"""


def around_a_pair(*profits: tuple[int, int, int, int], is_sized: bool = True) -> list[Snapshot]:
    """The P&L of the long and the short leg of a hedge, of another long, and of another short, each minute.

    `is_sized`: whether the contract sizes of the legs are known.
    """
    found = []
    for each in profits:
        names = (("A", "long"), ("B", "short"), ("C", "long"), ("D", "short"))
        rows = [position(symbol, side, str(made)) for (symbol, side), made in zip(names, each, strict=True)]
        known = [rules("A"), rules("B")] if is_sized else []
        found.append(account(str(10_000 + sum(each)), rows, instruments=known))
    return recorded(minutes(*found))


STILL = (0, 0, 0, 0)
BLIND = recorded(minutes(made("10000"), made("10000"), *[account("9400", None)] * 3))
"""6% are lost, and nobody knows by which position."""
SCENARIOS: dict[str, Scenario] = {
    "equity.value": Scenario(
        "signal: equity.value, below: 9000 USDT",
        recorded(minutes(*([flat(each, "a"), flat("1000", "b")] for each in ("9000", "8000", "7999")))),
        recorded(minutes([flat("8000", "a"), flat("1000", "b")], [flat("8000", "a"), without("b")])),  # b held nothing
        UNREAD,
        scope=PORTFOLIO,
    ),
    "equity.drawdown": Scenario(
        "signal: equity.drawdown, window: 2m, at_least: 5%",
        equities("10000", "10000", "10200", "9690"),
        withdrawn("5710", "5710"),  # 40% less by a withdrawal, and 4.8% by prices
        UNREAD,
    ),
    "equity.drawdown_from_peak": Scenario(
        "signal: equity.drawdown_from_peak, at_least: 5%",
        equities("10000", "11000", "10451", "10450"),
        withdrawn("6600", "6271"),  # 4.98% from a peak of 1.1
        UNREAD,
    ),
    "equity.loss_from_start": Scenario(
        "signal: equity.loss_from_start, at_least: 5%",
        equities("10000", "9501", "9500"),
        equities("10000", "12000", "9600"),  # 20% from a peak, 4% from the start
        UNREAD,
    ),
    "equity.unexplained": Scenario(
        "signal: equity.unexplained, at_most: -500 USDT, confirm: 1m",
        cash("10000", "10000", "9400", "9400"),
        cash("10000", "9400", "9400", "9400", flows=[(1, "-600")]),  # a withdrawal
        UNREAD,
        scope=USDT,
    ),
    "equity.unexplained_share": Scenario(
        "signal: equity.unexplained_share, at_least: 5%, confirm: 1m",
        cash("10000", "10000", "9400", "9400"),
        cash("10000", "10600", "10600", "10600"),  # a deposit whose row is late is no fall
        UNREAD,
    ),
    "attribution.long_share": Scenario(
        'when: \'attribution.long_share("2m") >= 0.9 && equity.drawdown("2m") >= 0.05\'',
        sides(("0", "0"), ("0", "0"), ("-300", "-60"), ("-540", "-60")),
        sides(("0", "0"), ("0", "0"), ("-300", "-60"), ("-540", "-61")),  # 89.9%
        BLIND,
    ),
    "attribution.short_share": Scenario(
        'when: \'attribution.short_share("2m") >= 0.9 && equity.drawdown("2m") >= 0.05\'',
        sides(("0", "0"), ("0", "0"), ("50", "-300"), ("50", "-560")),
        sides(("0", "0"), ("0", "0"), ("-300", "50"), ("-560", "50")),  # the long lost
        BLIND,
    ),
    "attribution.source": Scenario(
        'when: \'attribution.source("2m") == "SHORT" && equity.drawdown("2m") >= 0.05\'',
        sides(("0", "0"), ("0", "0"), ("-100", "-300"), ("-200", "-400")),  # two thirds
        sides(("0", "0"), ("0", "0"), ("-100", "-300"), ("-201", "-400")),  # less: it is mixed
        BLIND,
    ),
    "attribution.source:hedged": Scenario(
        'when: \'attribution.source("2m") == "LONG" && equity.drawdown("2m") >= 0.05\'',
        around_a_pair(STILL, STILL, STILL, (500, -500, -600, 0)),  # the long C lost, and no leg did
        around_a_pair(STILL, STILL, STILL, (-600, 600, -300, -300)),  # what A lost B won: neither side lost alone
        around_a_pair(STILL, STILL, *[(500, -500, -600, 0)] * 3, is_sized=False),
        documents=PAIR,
    ),
    "attribution.long_share:hedged": Scenario(
        'when: \'attribution.long_share("2m") >= 0.9 && equity.drawdown("2m") >= 0.05\'',
        around_a_pair(STILL, STILL, STILL, (540, -540, -540, -60)),
        around_a_pair(STILL, STILL, STILL, (-800, 800, -250, -250)),
        around_a_pair(STILL, STILL, *[(-800, 800, -540, -60)] * 3, is_sized=False),
        documents=PAIR,
    ),
    "attribution.short_share:hedged": Scenario(
        'when: \'attribution.short_share("2m") >= 0.9 && equity.drawdown("2m") >= 0.05\'',
        around_a_pair(STILL, STILL, STILL, (-540, 540, -60, -540)),
        around_a_pair(STILL, STILL, STILL, (800, -800, -250, -250)),
        around_a_pair(STILL, STILL, *[(800, -800, -60, -540)] * 3, is_sized=False),
        documents=PAIR,
    ),
}
