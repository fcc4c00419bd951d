"""Parts of the page of a plan: positions, the headroom of triggers in money, and what each level would sell now.

A book of thousands of positions stays readable: the worst are shown, and the rest is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from killswitch.incident.record.firing import schedule_lines
from killswitch.model.effects import Cancels, Orders
from killswitch.operations.pages.wording import effect_line
from killswitch.operations.preview import cost_of
from killswitch.planning.exposures import PositionExposure
from killswitch.planning.firing import LevelPreview
from killswitch.planning.orders.expected_cost import ExpectedOrder
from killswitch.planning.scopes.money_headroom import MoneyHeadroom
from killswitch.render.document import Footnotes, Items, Part, Section, Table, section
from killswitch.render.formats import amount_text, count_of, exact, money

POSITIONS_SHOWN = 12
"""Maximum positions on a page; `--output json` lists all."""
ORDERS_SHOWN = 5
"""Maximum orders of a level on a page."""
ALL_IN_JSON = "`--output json` lists all"


# Positions


def positions_section(positions: Sequence[PositionExposure]) -> Iterator[Section]:
    """The positions with the largest losses, and a line that counts the rest."""
    footnotes = Footnotes()
    shown, rest = positions[:POSITIONS_SHOWN], positions[POSITIONS_SHOWN:]
    currencies = {each.currency for each in positions}
    only = next(iter(currencies)) if len(currencies) == 1 else None
    rows = tuple(_position_row(each, footnotes, has_currency=only is None) for each in shown)
    head = (
        "account",
        "symbol",
        "side",
        "contracts",
        "mark",
        f"notional {only or ''}".rstrip(),
        "P&L",
        "to liquidation",
    )
    table = Table(head, rows, (3, 4, 5, 6, 7), notes=footnotes.notes, expendable=(4, 5))
    yield from section("Positions", table, _rest_line(rest) if rest else None)


def _position_row(each: PositionExposure, footnotes: Footnotes, *, has_currency: bool) -> tuple[str, ...]:
    account = each.account + (f" {footnotes.numbered(_LAST_KNOWN.format(each.account))}" if each.last_known else "")
    distance = each.liquidation_distance
    return (
        account, each.symbol, each.side, exact(each.contracts.normalize()), exact(each.mark),
        money(each.notional, each.currency if has_currency else None),
        "unknown" if each.unrealised is None else amount_text(each.unrealised, each.currency),
        "not stated" if distance is None else f"{float(distance):.2%}",
    )  # fmt: skip


_LAST_KNOWN = "{} cannot be read: its positions are those seen last"


def _rest_line(rest: Sequence[PositionExposure]) -> str:
    """`and 3,980 more: 1,204 losing (-12,345.00 USDT), 2 of unknown profit; …`."""
    losing = [each for each in rest if each.unrealised is not None and each.unrealised < 0]
    unknown = sum(each.unrealised is None for each in rest)
    lost: dict[str, Decimal] = {}
    for each in losing:
        lost[each.currency] = lost.get(each.currency, Decimal(0)) + (each.unrealised or Decimal(0))
    sums = ", ".join(amount_text(amount, currency) for currency, amount in sorted(lost.items()))
    parts = [f"{len(losing):,} losing ({sums})" if losing else "none losing"]
    parts += [f"{unknown:,} of unknown profit or loss"] if unknown else []
    return f"and {count_of(len(rest), 'more position')}: {', '.join(parts)}; {ALL_IN_JSON}"


# Headroom in money

MoneyKey = tuple[str, str, str]


def by_trigger(headrooms: Iterable[MoneyHeadroom]) -> Mapping[MoneyKey, MoneyHeadroom]:
    """(policy, scope, trigger) → its headroom in money."""
    return {(each.policy, each.scope, each.trigger): each for each in headrooms}


def headroom_text(found: MoneyHeadroom | None, footnotes: Footnotes) -> str:
    """`−4,120.00 USDT more`, `beyond by 300.00 USDT`; a footnote where there is none; `-` for what is not known yet."""
    if found is None or (found.is_true is None and not found.is_bound):
        return "-"
    change = found.change
    if change is None:
        return f"none {footnotes.numbered(found.because or 'it is unknown')}"
    amount = amount_text(abs(change.quantize(Decimal("0.01")) if abs(change) >= 1 else change), found.currency)
    if found.is_true:
        return f"beyond by {'at least ' if found.is_bound else ''}{amount}"
    more = f"−{amount} more" if change < 0 else f"+{amount} of gain"
    return f"at most {more}" if found.is_bound else more


# Levels


def levels_parts(levels: Sequence[LevelPreview], *, with_orders: bool) -> Iterator[Part]:
    """What each level would sell: a row each, and below them its orders, the worst positions first."""
    footnotes = Footnotes()
    rows = tuple(_level_row(each, footnotes) for each in levels)
    head = ("level", "stage", "orders", "closes", "expected cost", "net after", "margin ratio", "remarks")
    if rows:
        yield Table(head, rows, (0, 2, 3), caption="If it fired now", notes=footnotes.notes, expendable=(6, 2))
    if with_orders:
        yield from _orders_parts(levels)


def _level_row(level: LevelPreview, footnotes: Footnotes) -> tuple[str, ...]:
    decision, book = level.decision, level.decision.book
    cost = _cost(level, footnotes)  # first, because footnotes are numbered from left to right
    remarks = ["in force"] if level.is_in_force else []
    if level.because is not None or decision.reason is not None:
        remarks.append(footnotes.mark("; ".join(filter(None, (level.because, decision.reason)))))
    further = [effect_line(each) for each in decision.effects if not isinstance(each, Orders | Cancels)]
    further += [f"cancels {count_of(len(decision.cancels), 'order')}"] if decision.cancels else []
    further += schedule_lines(decision)
    remarks += [footnotes.mark("; ".join(further))] if further else []
    remarks += [f"{len(level.blocked)} blocked {footnotes.numbered(_blocked_text(level))}"] if level.blocked else []
    ratio = None if book is None else book.after.margin_ratio
    return (
        str(decision.level), decision.stage or "", str(sum(each.orders for each in level.expected)),
        _closes(level), cost,
        "unknown" if book is None else money(book.after.net, level.currency),
        "unknown" if ratio is None else f"{float(ratio):.2f}", ", ".join(remarks) or "-",
    )  # fmt: skip


def _blocked_text(level: LevelPreview) -> str:
    return "; ".join(f"{each.symbol} on {each.account}: {each.why}" for each in level.blocked)


def _closes(level: LevelPreview) -> str:
    """The value of what it closes at the marks."""
    if not level.expected:
        return "nothing"
    values = [each.value for each in level.expected]
    known = sum((each for each in values if each is not None), Decimal(0))
    return ("at least " if None in values else "") + money(known, level.currency)


_LACKING = {
    "quote": "a position has no bid and no ask, so that its price is unknown",
    "impact": "its market states no volume and volatility, so that the impact is not in it",
    "value": "the value of a contract is unknown",
}


def _cost(level: LevelPreview, footnotes: Footnotes) -> str:
    cost, lacks = cost_of(level)
    if not level.expected:
        return "-"
    why = f" {footnotes.numbered('; '.join(_LACKING[each] for each in lacks))}" if lacks else ""
    if cost is None:
        return f"unknown{why}"
    return f"{'at least ' if lacks else ''}{amount_text(cost, level.currency)}{why}"


def _orders_parts(levels: Sequence[LevelPreview]) -> Iterator[Part]:
    before: LevelPreview | None = None
    for level in levels:
        if not level.expected:
            continue
        if before is not None and before.expected == level.expected:
            yield f"{_named(level)}: the orders of {_named(before)}"
            continue
        before = level
        yield Table(
            _order_head(level.currency), tuple(_order_rows(level.expected, level.currency)), (0, 2, 4, 5, 6, 7),
            caption=_named(level), expendable=(5, 7),
        )  # fmt: skip


def _named(level: LevelPreview) -> str:
    return f"level {level.decision.level}, {level.decision.stage}"


def _order_head(currency: str | None) -> tuple[str, ...]:
    return ("#", "order", "contracts", "symbol", "price", f"value {currency or ''}".rstrip(), "cost", "leaves")


def _order_rows(expected: Sequence[ExpectedOrder], currency: str | None) -> Iterator[tuple[str, ...]]:
    """The first orders, and in one row how many more there are, with their value."""
    shown, rest = expected[:ORDERS_SHOWN], expected[ORDERS_SHOWN:]
    for each in shown:
        yield _order_row(each, currency)
    if rest:
        values = [each.value for each in rest]
        value = "unknown" if None in values else money(sum(filter(None, values), Decimal(0)))
        yield "", "", f"{len(rest):,} more", "", "", value, "", ""


def _order_row(each: ExpectedOrder, currency: str | None) -> tuple[str, ...]:
    price = "unknown" if each.price is None else f"{each.price.normalize():.10g}"
    slices = f" in {each.orders}" if each.orders > 1 else ""
    return (
        str(each.rank), each.side, f"{exact(each.contracts.normalize())}{slices}",
        f"{each.symbol} ({each.account})", price, money(each.value),
        "unknown" if each.cost is None else amount_text(each.cost, currency), exact(each.leaves.normalize()),
    )  # fmt: skip


def expected_section(expected: Sequence[ExpectedOrder], currency: str | None) -> Iterator[Section]:
    """What the orders of a close are expected to fetch and to cost, without fees; what is unknown is named."""
    if not expected:
        return
    known = sum((each.cost for each in expected if each.cost is not None), Decimal(0))
    lacks = tuple(dict.fromkeys(what for each in expected for what in each.lacks))
    total = f"{'at least ' if lacks else ''}{amount_text(known, currency)} against the marks, without fees"
    # What each order leaves is in the table of what was decided.
    head, rows = _order_head(currency)[:-1], tuple(row[:-1] for row in _order_rows(expected, currency))
    table = Table(head, rows, (0, 2, 4, 5, 6), expendable=(5,))
    missing = tuple(f"not in it: {_LACKING[each]}" for each in lacks)
    yield from section("Expected prices and cost", table, Items((f"expected cost: {total}", *missing)))
