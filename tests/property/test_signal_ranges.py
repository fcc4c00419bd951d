"""For any account, a known signal lies within the range that its declaration gives."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.graph.nodes import SignalRef
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Health, Position
from killswitch.planning.targets.ranking import Ranked, candidates
from killswitch.signals.catalogue import BY_NAME, CATALOGUE
from killswitch.signals.history.windows import pnl_change
from killswitch.signals.signal_values import ColumnReader, SignalColumns, position_columns
from killswitch.valuation.scope_view import ScopeView
from tests.worlds import account, after, flow, rules
from tests.worlds.signals import WINDOW, arguments_of, history_of

AMOUNTS = st.integers(-200_000, 200_000).map(lambda cents: Decimal(cents) / 100)
SIZES = st.integers(0, 200_000).map(lambda cents: Decimal(cents) / 100)
COUNTS = st.integers(0, 5)
RULES = {("main", symbol): rules(symbol) for symbol in "ABC"}  # none of D
SCOPE, POSITION = (
    [SignalRef(spec.name, arguments_of(spec)) for spec in CATALOGUE if spec.level == level]
    for level in ("scope", "position")
)


def maybe(values: st.SearchStrategy[Decimal]) -> st.SearchStrategy[Decimal | None]:
    return st.none() | values


@st.composite
def positions(draw: st.DrawFn) -> list[Position]:
    """Up to four, each with or without a notional, a profit, a margin and a liquidation price, on either side."""
    return [
        Position(
            symbol, draw(st.sampled_from(["long", "short"])), Decimal(1), mark_price=draw(maybe(SIZES)),
            notional=draw(maybe(AMOUNTS)), unrealized_pnl=draw(maybe(AMOUNTS)), margin=draw(maybe(SIZES)),
            liquidation_price=draw(maybe(SIZES)), entry_price=draw(maybe(SIZES)),
        )
        for symbol in draw(st.lists(st.sampled_from("ABCD"), unique=True))
    ]  # fmt: skip


@st.composite
def accounts(draw: st.DrawFn, minute: int) -> AccountSnapshot:
    """One answer of one account: in profit or debt, with or without margin, rows, and the venue's health figure."""
    read_until = draw(st.sampled_from([after(minutes=minute), after(minutes=minute), None]))
    kind = draw(st.sampled_from(["funding", "withdrawal", "fee"]))
    flows = [
        flow(f"{kind}-{minute}", after(minutes=minute), str(amount), kind)
        for amount in draw(st.lists(AMOUNTS, max_size=1))
    ]
    health = Health(float(draw(COUNTS)), draw(COUNTS), draw(COUNTS), draw(COUNTS), draw(COUNTS))
    return account(
        str(draw(AMOUNTS)), draw(positions()), observed_at=after(minutes=minute),
        quality=draw(st.sampled_from(["ok", "ok", "ok", "down"])),
        maintenance_margin=draw(maybe(SIZES)), health=draw(st.sampled_from([health, None])),
        unrealized=draw(maybe(AMOUNTS)), flows=flows, flows_as_of=read_until, fills_as_of=read_until,
    )  # fmt: skip


def out_of_range(refs: Sequence[SignalRef], columns: SignalColumns) -> list[str]:
    """The signals of which an end of the interval, unless that is unbounded, is out of range."""
    found = []
    for ref, low, high in zip(refs, columns.lo, columns.hi, strict=True):
        least, most = BY_NAME[ref.name].range
        if low > high or (low > most or high < least) or (low == high and not least <= low <= most):
            found.append(f"{ref.name}: [{low}, {high}] of [{least}, {most}]")
    return found


@settings(max_examples=150)
@given(st.tuples(*(accounts(minute) for minute in range(4))))
def test_every_known_value_is_in_range(answers: tuple[AccountSnapshot, ...]) -> None:
    """The compiler reports "can never hold" by the range; a value out of it would fire what was called impossible."""
    history = history_of(SCOPE)  # of four answers a minute apart the last two have a whole window
    reader = ColumnReader(SCOPE)
    for minute, answer in enumerate(answers):
        view = ScopeView(to_micros(after(minutes=minute)), True, (answer,), RULES, None)
        history.observe(view)
        assert out_of_range(SCOPE, reader.read(history, view)) == []
        change = pnl_change(history, WINDOW)
        for each in candidates(view.trusted(), None if isinstance(change, str) else change):
            assert out_of_range(POSITION, position_columns(POSITION, Ranked(each, 1, 0.5))) == []
