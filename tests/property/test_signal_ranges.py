"""For any account, a known signal lies within the range that its declaration gives."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.graph.nodes import SignalRef
from killswitch.model.snapshot import (
    AccountSnapshot,
    ExternalAlert,
    Fill,
    Health,
    LimitUse,
    Liquidity,
    Order,
    OwnOrder,
    Position,
    Snapshot,
    WatchedPrice,
    Withdrawals,
)
from killswitch.planning.targets.ranking import Ranked, candidates
from killswitch.signals.catalogue import BY_NAME, CATALOGUE
from killswitch.signals.history.windows import pnl_change
from killswitch.signals.signal_values import ColumnReader, SignalColumns, position_columns
from tests.worlds import account, after, flow, rules, snapshot
from tests.worlds.signals import WINDOW, arguments_of, history_of, view_of

AMOUNTS = st.integers(-200_000, 200_000).map(lambda cents: Decimal(cents) / 100)
SIZES = st.integers(0, 200_000).map(lambda cents: Decimal(cents) / 100)
COUNTS = st.integers(0, 5)
RULES = tuple(rules(symbol) for symbol in "ABC")  # none of D
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
            adl_rank=draw(st.none() | st.integers(0, 6)),
        )
        for symbol in draw(st.lists(st.sampled_from("ABCD"), unique=True))
    ]  # fmt: skip


@st.composite
def watched(draw: st.DrawFn, minute: int) -> tuple[WatchedPrice, ...]:
    """A and B with or without each of their prices, also negative ones, and with a fresh or an old time."""
    at = after(minutes=draw(st.sampled_from([minute, minute, minute, 0])))
    return tuple(
        WatchedPrice(
            symbol, draw(maybe(SIZES)), draw(maybe(SIZES)), draw(maybe(AMOUNTS)), draw(maybe(AMOUNTS)),
            draw(maybe(SIZES)), at=draw(st.sampled_from([at, None])),
            reference_price=draw(maybe(AMOUNTS)), price_limit=draw(maybe(SIZES)),
        )
        for symbol in draw(st.lists(st.sampled_from("AB"), unique=True))
    )  # fmt: skip


@st.composite
def accounts(draw: st.DrawFn, minute: int) -> AccountSnapshot:
    """One answer of one account: in profit or debt, with or without margin, rows, and the venue's health figure."""
    read_until = draw(st.sampled_from([after(minutes=minute), after(minutes=minute), None]))
    kind = draw(st.sampled_from(["funding", "withdrawal", "fee"]))
    flows = [
        flow(f"{kind}-{minute}", after(minutes=minute), str(amount), kind)
        for amount in draw(st.lists(AMOUNTS, max_size=1))
    ]
    health = Health(
        float(draw(COUNTS)), draw(COUNTS), draw(COUNTS), draw(COUNTS), draw(COUNTS),
        clock_skew_ms=draw(st.none() | st.floats(-1e6, 1e6)),
        limits=draw(st.none() | st.just((LimitUse("weight", draw(SIZES), Decimal(1000)),))),
    )  # fmt: skip
    return account(
        str(draw(AMOUNTS)), draw(positions()), observed_at=after(minutes=minute),
        quality=draw(st.sampled_from(["ok", "ok", "ok", "down"])),
        maintenance_margin=draw(maybe(SIZES)), health=draw(st.sampled_from([health, None])),
        unrealized=draw(maybe(AMOUNTS)), flows=flows, flows_as_of=read_until, fills_as_of=read_until,
        watched=draw(st.none() | watched(minute)),
        liquidity=draw(st.sampled_from([None, (Liquidity("A", draw(SIZES), draw(AMOUNTS), Decimal("0.5")),)])),
        adl_ranks=draw(st.sampled_from([None, 4, 5])),
        orders=draw(st.lists(orders(), max_size=3, unique_by=lambda each: each.id)),
        withdrawals=draw(st.sampled_from([None, (), (Withdrawals("BTC", True),)])), instruments=RULES,
        fills=[draw(fills(minute, number)) for number in range(draw(st.integers(0, 3)))],
    )  # fmt: skip


@st.composite
def fills(draw: st.DrawFn, minute: int, number: int) -> Fill:
    """A fill of one of two symbols, of either position side or none, with or without profit and fee, by any cause."""
    return Fill(
        f"{minute}/{number}", after(minutes=minute), draw(st.sampled_from("AB")),
        draw(st.sampled_from(["buy", "sell"])), Decimal(draw(st.integers(1, 2))), Decimal(draw(st.integers(90, 110))),
        position_side=draw(st.sampled_from([None, "long", "short"])), realized_pnl=draw(maybe(AMOUNTS)),
        fee=draw(st.sampled_from([None, Decimal(1)])), fee_currency=draw(st.sampled_from(["USDT", "BNB"])),
        cause=draw(st.sampled_from(["trade", "trade", "liquidation", "adl", "delivery"])),
        client_order_id=draw(st.sampled_from([None, "bot", "ks0123456789abcdefghijklmnopqrs"])),
        trigger_price=draw(st.sampled_from([None, Decimal(90)])),
    )  # fmt: skip


@st.composite
def orders(draw: st.DrawFn) -> Order:
    """An open order with or without a price, a filled amount, the mark reduce-only and a time."""
    return Order(
        draw(st.sampled_from("abcdef")), draw(st.sampled_from("ABCD")), draw(st.sampled_from(["buy", "sell"])),
        draw(SIZES), price=draw(maybe(SIZES)), filled=draw(maybe(SIZES)), reduce_only=draw(st.none() | st.booleans()),
        created_at=draw(st.none() | st.just(after())),
    )  # fmt: skip


@st.composite
def ticks(draw: st.DrawFn, minute: int) -> Snapshot:
    """A snapshot of one account, with what a run adds to it, or without: a recording of an earlier version."""
    answer, is_recorded = draw(accounts(minute)), draw(st.booleans())
    if not is_recorded:
        return snapshot(after(minutes=minute), answer)
    fates = draw(st.lists(st.sampled_from(["pending", "unconfirmed", "accepted", "rejected", "done"]), max_size=3))
    own = tuple(OwnOrder(f"ks{i}", "main", "A", fate, after(), after(minutes=minute)) for i, fate in enumerate(fates))
    at = after(minutes=minute, seconds=-draw(st.integers(-60, 600)))
    alerts = (
        ExternalAlert("A", draw(st.sampled_from(["firing", "resolved"])), at, ends_at=draw(st.none() | st.just(at))),
    )
    return Snapshot(
        after(minutes=minute), (answer,), "killswitch.snapshot/v1", due=draw(st.none() | st.just(at)),
        own_orders=own, heartbeats=draw(st.sampled_from([{}, {"A": at}])), alerts=alerts,
        alerts_as_of=draw(st.none() | st.just(at)),
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
@given(st.tuples(*(ticks(minute) for minute in range(4))))
def test_every_known_value_is_in_range(recording: tuple[Snapshot, ...]) -> None:
    """The compiler reports "can never hold" by the range; a value out of it would fire what was called impossible."""
    history = history_of(SCOPE)  # of four answers a minute apart the last two have a whole window
    reader = ColumnReader(SCOPE)
    for seen in recording:
        view = view_of(seen)
        history.observe(view)
        assert out_of_range(SCOPE, reader.read(history, view)) == []
        change = pnl_change(history, WINDOW)
        delta = None if isinstance(change, str) else change
        for each in candidates(view.trusted(), delta, changes={WINDOW: delta}):
            assert out_of_range(POSITION, position_columns(POSITION, Ranked(each, 1, 0.5))) == []
