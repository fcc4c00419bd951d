"""OKX's bills: which of them are flows, of what kind, and how they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from killswitch.model.snapshot import Flow, FlowKind
from killswitch_ccxt.numbers import UnreadableError, decimal, instant, needed, told_of

Row = Mapping[str, Any]
FLOW_TYPES: Final[Mapping[str, FlowKind]] = {
    "1": "transfer",
    "7": "interest",
    "8": "funding",
    "10": "insurance",
    "12": "transfer",  # to and from trading bots
    "18": "fee",  # a share of the profit
    "26": "transfer",  # structured products
    "33": "transfer",  # loans from outside the trading account
    "250": "fee",
    "251": "rebate",
}
"""`type` of a bill → kind of a flow. Deposits come to the funding account, and from there as transfers."""
NO_FLOWS: Final = frozenset(
    {
        # Told by fills: trade, delivery, liquidation, ADL, delta hedge, block trade, spread, move, settlement
        "2", "3", "5", "9", "13", "14", "24", "32", "34",
        # One coin of the account for another: forced repayment, conversions, one-click repay, simple trade
        "4", "11", "27", "28", "29", "30",
        # Margin that moves inside, and debts: what is borrowed is in the balance and off the equity at once
        "6", "15", "16", "22",
    }
)  # fmt: skip
"""`type` of a bill that leaves the equity as it was, or that fills tell of."""
BUSY: Final = 3
"""Pages of all bills that are read. Where there are more, it is trades that fill them, and each kind of flow is asked
for by itself."""
PACE: Final = 0.35
"""Seconds between two of these questions: OKX takes five a second, those before them included."""


def flows(bills: Iterable[Row]) -> tuple[Flow, ...]:
    """The bills that are flows. What moved in an isolated position's own margin is told beside the account's change.

    A type that nobody knows here is a rebate or a fee, by its sign: profit or loss. So a loss never hides as money
    that somebody took out, though money taken out in a new way counts as a loss until its type is known. Such a flow
    has the type in its id.
    """
    found = []
    for bill in bills:
        told = told_of(bill.get("type"), f"bill {bill.get('billId')}")
        if told in NO_FLOWS:
            continue
        number, at = str(bill.get("billId") or ""), instant(bill.get("ts"))
        amount = needed(bill.get("balChg"), f"the change of bill {number}") or decimal(bill.get("posBalChg"))
        if not number or at is None:
            raise UnreadableError("a bill without an id or a time")
        if not amount:
            continue
        kind = FLOW_TYPES.get(told)
        name = number if kind is not None else f"type {told}:{number}"
        found.append(
            Flow(
                name,
                at,
                kind or ("rebate" if amount > 0 else "fee"),
                amount,
                told_of(bill.get("ccy"), f"bill {number}"),
            )
        )
    return tuple(found)
