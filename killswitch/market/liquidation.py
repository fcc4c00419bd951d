"""Liquidation of an account that falls below its maintenance margin."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal

from killswitch.market.account import PaperAccount
from killswitch.market.holding import ZERO
from killswitch.market.matching import Matching
from killswitch.market.rules import lots_up
from killswitch.market.tape import MarketBar
from killswitch.model.snapshot import Flow, OrderSide

Marks = Mapping[str, Decimal]


class Liquidator:
    """Liquidates in steps, at the moment at which the margin is used up.

    Between two points of the bars' paths all prices are assumed to move evenly and together, so equity minus
    maintenance margin moves evenly too, and its zero is found exactly. There all orders of the account are cancelled
    and a part of the position with the largest maintenance margin is closed at the mark for a liquidation fee,
    repeatedly until the margin suffices. If nothing is left and the wallet is below zero, the venue's insurance fund
    pays the rest (a flow of kind `insurance`).
    """

    def __init__(self, matching: Matching) -> None:
        self._matching = matching
        self._tapes = matching.tapes
        self._rules = matching.rules

    def is_out_of_reach(self, account: PaperAccount, bars: Mapping[str, MarketBar]) -> bool:
        """Whether the margin suffices even at all of the bars' worst prices at once."""
        if account.is_cash or not account.holdings or not self._rules.liquidates:
            return True
        equity, gross = account.wallet, ZERO
        for holding in account.holdings.values():
            low, high = self._extremes(holding.symbol, bars)
            equity += holding.unrealized(low if holding.quantity > 0 else high)
            gross += abs(holding.quantity) * high
        return equity > gross * self._rules.maintenance

    def liquidate_between(self, account: PaperAccount, before: Marks, after: Marks, at: datetime) -> None:
        """Liquidate what is due while the marks move from `before` to `after`."""
        if account.is_cash or not self._rules.liquidates:
            return
        marks = before
        while account.holdings:
            room = self._room(account, marks)
            if room > 0:
                end = self._room(account, after)
                if end > 0:
                    return
                marks = self.between(marks, after, room / (room - end))
            self._step(account, marks, at)
        self._insure(account, at)

    def _extremes(self, symbol: str, bars: Mapping[str, MarketBar]) -> tuple[Decimal, Decimal]:
        last = self._tapes[symbol].last or ZERO
        bar = bars.get(symbol)
        return (min(last, bar.low), max(last, bar.high)) if bar else (last, last)

    def _room(self, account: PaperAccount, marks: Marks) -> Decimal:
        margin = account.margin(marks, self._rules.maintenance)
        return margin.equity - margin.maintenance

    def between(self, before: Marks, after: Marks, share: Decimal) -> dict[str, Decimal]:
        """The marks after `share` of the way, to the tick."""
        marks = {}
        for symbol, price in before.items():
            tick = self._tapes[symbol].tick
            moved = price + share * (after[symbol] - price)
            marks[symbol] = (moved / tick).to_integral_value(ROUND_HALF_EVEN) * tick
        return marks

    def _step(self, account: PaperAccount, marks: Marks, at: datetime) -> None:
        for order in account.working:
            order.state = "canceled"
        account.drop_done()
        holding = max(account.holdings.values(), key=lambda h: (abs(h.quantity) * marks[h.symbol], h.symbol, h.side))
        tape = self._tapes[holding.symbol]
        contracts = abs(holding.quantity) / tape.size
        amount = min(contracts, lots_up(contracts * self._rules.liquidation_step, tape.step))
        side: OrderSide = "sell" if holding.quantity > 0 else "buy"
        self._matching.book(
            account, tape, None, side, amount, marks[holding.symbol], self._rules.liquidation_fee, at, "liquidation",
            holding.side,
        )  # fmt: skip

    def _insure(self, account: PaperAccount, at: datetime) -> None:
        if account.holdings or account.wallet >= 0:
            return
        paid = -account.wallet
        account.wallet = ZERO
        account.flows.add(Flow(self._matching.next_id("w"), at, "insurance", paid, account.currency))
