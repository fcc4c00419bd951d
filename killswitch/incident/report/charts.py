"""The drawings of a report next to the equity curve: P&L by side, positions before and after, times, and slippage.

Each is a list of bars, from which Markdown gets lines of characters and a page gets SVG: both show the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal

from killswitch.incident.record.document import Incident
from killswitch.incident.record.order_outcomes import OrderOutcome
from killswitch.render.bar_chart import BarLimit, ChartBar, Tone, bar_figure, bar_lines
from killswitch.render.document import Figure
from killswitch.render.formats import count_of, money
from killswitch.risk.trading_cost import slippage

TARGET = 60.0
"""Seconds from the decision in which a close is to be flat."""
MOST_BARS = 40
"""The most bars of a drawing; the tables of a report have all of them."""


def side_bars(incident: Incident) -> tuple[ChartBar, ...]:
    """P&L of each side: unrealised when the incident opened, and realised by its orders before fees."""
    currency = incident.money.currency
    rows = []
    for each in incident.sides:
        rows.append(_amount_bar(f"{each.side}, unrealised when it fired", each.unrealised, currency))
        rows.append(_amount_bar(f"{each.side}, realised by the close", each.realised, currency))
    return tuple(rows)


def _amount_bar(name: str, amount: Decimal | None, currency: str | None) -> ChartBar:
    tone: Tone = "plain" if not amount else "good" if amount > 0 else "bad"
    return ChartBar(name, None if amount is None else float(amount), money(amount, currency), tone)


def position_bars(incident: Incident) -> tuple[ChartBar, ...]:
    """What is left of each position, in front of what was held before, which is the whole row."""
    rows = []
    for each in incident.positions[:MOST_BARS]:
        name = f"{each.symbol} {each.side or ''} on {each.account}".replace("  ", " ")
        if each.left is None or not each.start:
            rows.append(ChartBar(name, None, f"held {each.start.normalize():f}, now unknown", whole=1.0))
            continue
        share = float(each.left / each.start)
        text = f"{each.start.normalize():f} before, {each.left.normalize():f} now ({share:.0%})"
        rows.append(ChartBar(name, share, text, "good" if each.left <= each.target else "bad", whole=1.0))
    return tuple(rows)


def closing_bars(incident: Incident) -> tuple[ChartBar, ...]:
    """For each position the seconds from its decision: from its first order until the venue showed it at its target."""
    decided = {each.decision: each.at for each in incident.firings}
    rows = []
    for each in incident.positions[:MOST_BARS]:
        orders = [order for order in incident.orders if order.place == each.place]
        if not orders:
            continue
        at = min(decided[order.decision] for order in orders)
        begins = _seconds(at, min(order.sent_at for order in orders))
        name = f"{each.symbol} {each.side or ''} on {each.account}".replace("  ", " ")
        if each.seen_at is None or each.left is None or each.left > each.target:
            rows.append(ChartBar(name, None, f"first order after {begins:.1f} s, not at target yet"))
            continue
        ends = max(begins, _seconds(at, each.seen_at))
        tone: Tone = "good" if ends <= TARGET else "bad"
        rows.append(ChartBar(name, ends, f"at target after {ends:.1f} s", tone, begins=begins))
    return tuple(rows)


def _seconds(begin: datetime, end: datetime) -> float:
    return max(0.0, (end - begin).total_seconds())


def slippage_bars(incident: Incident) -> tuple[ChartBar, ...]:
    """The slippage of each filled order as a share of the mark when it was sent; below zero is a better price."""
    filled = [each for each in incident.orders if each.filled]
    rows = []
    for each in filled[:MOST_BARS]:
        name, share = f"{each.number} {each.symbol} {each.position_side or ''}".rstrip(), _slipped(each)
        if share is None:
            rows.append(ChartBar(name, None, "unknown: no mark, or no price"))
        else:
            amount = "" if each.slippage is None else f", {money(each.slippage, incident.money.currency)}"
            tone: Tone = "bad" if each.bound is not None and each.bound.kept is False else "plain"
            beyond = ", beyond its bound" if tone == "bad" else ""
            rows.append(ChartBar(name, float(share), f"{share:.3%}{amount}{beyond}", tone))
    return tuple(rows)


def _slipped(order: OrderOutcome) -> Decimal | None:
    if order.side is None or order.price is None or not order.arrival_mark:
        return None
    return slippage(order.side, order.arrival_mark, order.price)


_LIMITS = {"closing": BarLimit(TARGET, f"target {TARGET:g} s")}
_CHARTS: Mapping[str, tuple[str, Callable[[Incident], tuple[ChartBar, ...]]]] = {
    "sides": ("P&L by side", side_bars),
    "positions": ("positions before and after", position_bars),
    "closing": ("time from the decision to the target of each position", closing_bars),
    "slippage": ("slippage by order", slippage_bars),
}
"""Name → caption, and what makes its bars. The name is the language of the code block that a page replaces."""


def chart_figures(incident: Incident) -> dict[str, Figure]:
    """Return the drawings that have at least one bar, by name."""
    drawn = {name: (caption, bars(incident)) for name, (caption, bars) in _CHARTS.items()}
    return {name: bar_figure(caption, rows, _LIMITS.get(name)) for name, (caption, rows) in drawn.items() if rows}


def sides_chart(incident: Incident) -> str:
    """P&L by side as lines of characters; empty where nothing is known of it."""
    return _lines(incident, "sides")


def positions_chart(incident: Incident) -> str:
    """Positions before and after as lines of characters; empty without a position."""
    return _lines(incident, "positions")


def closing_chart(incident: Incident) -> str:
    """The time to the target of each position as lines of characters; empty without an order."""
    return _lines(incident, "closing")


def slippage_chart(incident: Incident) -> str:
    """Slippage by order as lines of characters; empty without a fill."""
    return _lines(incident, "slippage")


def _lines(incident: Incident, name: str) -> str:
    rows = _CHARTS[name][1](incident)
    more = {"slippage": len([each for each in incident.orders if each.filled]), "positions": len(incident.positions)}
    left_out = more.get(name, 0) - len(rows) if len(rows) >= MOST_BARS else 0
    lines = bar_lines(rows, _LIMITS.get(name)) if rows else ()
    return "\n".join((*lines, *((f"and {count_of(left_out, 'more row')}",) if left_out > 0 else ())))
