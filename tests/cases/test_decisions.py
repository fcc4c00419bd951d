"""C7, D20, D21: the decision, before anything is sent."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from killswitch.graph.compile import compile_policies
from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import Position, Snapshot, decode_snapshot, encode_snapshot
from killswitch.planning.interpreter import Interpreter
from killswitch.policy.loader import load
from tests import graphs
from tests.graphs import FALL_15M, graph, policy_set, stage, trigger
from tests.worlds import account, after, position, rules, snapshot


@pytest.mark.parametrize("flag", ['"NO"', '"false"', '"true"'])
def test_c7_a_flag_that_is_a_string_is_refused_where_the_snapshot_is_decoded(flag: str) -> None:
    """A venue's `"NO"` is truthy: it never gets past the decoder."""
    whole = snapshot(after(), account("100000", (position("BTC", "long", "0"),)))
    order = b'{"id":"o","symbol":"BTC","side":"buy","amount":"1","reduce_only":' + flag.encode() + b"}"
    wrong = encode_snapshot(whole).replace(b'"orders":[]', b'"orders":[' + order + b"]")
    if wrong == encode_snapshot(whole):
        wrong = encode_snapshot(whole).replace(b'"positions":', b'"orders":[' + order + b'],"positions":', 1)
    with pytest.raises(ValueError, match="reduce_only"):
        decode_snapshot(wrong)


def test_c7_an_entry_marked_reduce_only_is_cancelled_and_an_unmarked_exit_is_kept() -> None:
    """Whatever the venue answers: an order that could add risk is cancelled, one that can only reduce stays."""
    from killswitch.graph.actions.cancel_orders import CancelOrders
    from killswitch.model.snapshot import Order

    fall = graph(
        (FALL_15M,), (trigger("fall", 0, 0.05),),
        (stage("trim", 1, 0, actions=(CancelOrders("entry"), graphs.close("both", "0.5"))),),
    )  # fmt: skip
    entry = Order("entry", "BTC", "buy", Decimal(3), reduce_only=False)
    stop = Order("stop", "BTC", "sell", Decimal(10), reduce_only=False, trigger_price=Decimal(90))
    held = [position("BTC", "long", "0", contracts="10", notional="1000")]
    fallen = [position("BTC", "long", "-9000", contracts="10", notional="1000")]
    interpreter = Interpreter(policy_set(fall))
    for minute in range(16):
        interpreter.tick(snapshot(after(minutes=minute), account("100000", held, orders=[entry, stop])))
    outcome = interpreter.tick(snapshot(after(minutes=16), account("91000", fallen, orders=[entry, stop])))
    (decision,) = outcome.decisions
    assert [cancel.order for cancel in decision.cancels] == ["entry"]


# D20: two longs and two shorts of 60,000 each, on 100,000; the market falls 8% in a quarter, and rebounds by 10%.

LONGS, SHORTS = ("A", "B"), ("C", "D")


class Book:
    """A hedged book at prices; every decision is filled at once, at the mark."""

    def __init__(self) -> None:
        self.held = {**dict.fromkeys(LONGS, Decimal(600)), **dict.fromkeys(SHORTS, Decimal(-600))}
        self.cash = Decimal(100_000)
        self.entry = Decimal(100)
        self.price = dict.fromkeys(self.held, Decimal(100))
        self.decisions: list[Decision] = []
        self.equities: list[Decimal] = []
        self.nets: list[Decimal] = []
        """Contracts held, longs less shorts, minute by minute."""

    @property
    def equity(self) -> Decimal:
        return self.cash + sum(self.held[s] * (self.price[s] - self.entry) for s in self.held)

    def positions(self) -> list[Position]:
        return [
            position(
                symbol, "long" if amount > 0 else "short", str(amount * (self.price[symbol] - self.entry)),
                contracts=str(abs(amount)), entry_price="100", mark_price=str(self.price[symbol]),
                notional=str(abs(amount) * self.price[symbol]),
            )
            for symbol, amount in self.held.items()
            if amount
        ]  # fmt: skip

    def snapshot_at(self, minute: int) -> Snapshot:
        markets = [rules(symbol) for symbol in self.held]
        observed = account(str(self.equity), self.positions(), instruments=markets, margin_used="1000", free="50000")
        return snapshot(after(minutes=minute), observed)

    def fill(self, decision: Decision) -> None:
        self.decisions.append(decision)
        for intent in decision.intents:
            traded = intent.contracts if intent.side == "buy" else -intent.contracts
            self.cash -= traded * (self.price[intent.symbol] - self.entry)
            self.held[intent.symbol] += traded


def fall_and_rebound(repository: Path, name: str) -> Book:
    """The longs fall by 8% while the shorts fall by half of it, minute by minute; then all rise by 10%."""
    policies, diagnostics = compile_policies(load([repository / "policies" / name]).documents)
    assert policies is not None, diagnostics
    interpreter, book = Interpreter(policies), Book()
    for minute in range(140):
        if 75 <= minute < 90:
            for symbol in book.held:
                book.price[symbol] -= Decimal("0.55") if symbol in LONGS else Decimal("0.05")
        elif 92 <= minute < 112:
            for symbol in book.held:
                book.price[symbol] += Decimal("0.6")
        book.equities.append(book.equity)
        book.nets.append(sum(book.held.values(), Decimal(0)))
        for decision in interpreter.tick(book.snapshot_at(minute)).decisions:
            book.fill(decision)
    return book


def test_d20_a_hedged_book_is_cut_on_both_sides_and_never_left_with_an_unhedged_one(repository: Path) -> None:
    """`futures-degross` keeps the hedge in proportion; closing the losing side alone leaves the shorts unhedged."""
    both, losing = fall_and_rebound(repository, "futures-degross"), fall_and_rebound(repository, "futures-drawdown")
    assert both.decisions, "the fall fired nothing"
    assert losing.decisions, "the fall fired nothing"
    assert {intent.symbol for intent in both.decisions[0].intents} == {*LONGS, *SHORTS}
    assert {intent.symbol for intent in losing.decisions[0].intents} <= set(LONGS)
    # Contracts were equal on both sides before: they still are where the book was cut as a whole.
    assert set(both.nets) == {Decimal(0)}
    assert min(losing.nets) < 0
    # In the rebound the unhedged shorts are squeezed, and closed in their turn: that is what the case is about.
    later = {intent.symbol for decision in losing.decisions[1:] for intent in decision.intents}
    assert later & set(SHORTS)
    assert min(both.equities[92:]) > min(losing.equities[92:])


def texts_of(notices: tuple[Notice, ...]) -> list[tuple[str, str]]:
    return [(notice.kind, notice.severity) for notice in notices]


@pytest.mark.parametrize(("ledger", "fires_at"), [("answers", 30), ("silent", 70)])
def test_d21_a_loss_by_liquidation_fires_without_a_row_and_pages(ledger: str, fires_at: int) -> None:
    """A long of 60,000 vanishes near its liquidation price, and 12,000 with it; no fill and no row ever say why.

    Closed at any price within 20% of its mark it may have cost as much, so that the fall is pending: it is a loss
    when the ledger was read 16 s past it, and after 60 s where the ledger is silent. Snapshots come every 10 s.
    """
    fall = graph(
        (FALL_15M,), (trigger("fall", 0, 0.10),), (stage("close-everything", 1, 0, actions=(graphs.close(),)),)
    )  # fmt: skip
    interpreter = Interpreter(policy_set(fall))
    kept = position("ETH", "long", "0", contracts="10", mark_price="100", notional="1000")
    liquidated = position(
        "BTC", "long", "0", contracts="600", mark_price="100", notional="60000", liquidation_price="97"
    )
    read = after(minutes=15) if ledger == "silent" else None

    def snapshot_at(seconds: float, equity: str, *held: Position) -> Snapshot:
        at = after(seconds=seconds)
        return snapshot(at, account(equity, held, fills_as_of=read or at, flows_as_of=read or at))

    for minute in range(16):
        interpreter.tick(snapshot_at(60 * minute, "100000", liquidated, kept))
    notices: list[tuple[str, str]] = []
    fired: list[tuple[int, Decision]] = []
    for second in range(10, 130, 10):
        outcome = interpreter.tick(snapshot_at(900 + second, "88000", kept))
        notices += texts_of(outcome.notices)
        fired += [(second, decision) for decision in outcome.decisions]
    ((second, decision),) = fired
    assert second == fires_at
    assert [(intent.symbol, intent.target) for intent in decision.intents] == [("ETH", Decimal(0))]
    assert ("unexplained", "page") in notices


@pytest.mark.parametrize("closes", [False, True])
def test_d21_money_that_no_trade_can_have_lost_pages_and_closes_only_where_the_policy_says_so(closes: bool) -> None:
    """12,000 are gone from a book that traded nothing and whose prices stood still: time makes no loss of it."""
    fall = graph(
        (FALL_15M,), (trigger("fall", 0, 0.10),), (stage("close-everything", 1, 0, actions=(graphs.close(),)),)
    )  # fmt: skip
    rule = replace(fall.equity, closes_unexplained=closes)
    interpreter = Interpreter(policy_set(replace(fall, equity=rule)))
    held = [position("BTC", "long", "0", contracts="10", mark_price="100", notional="1000")]
    for minute in range(16):
        interpreter.tick(snapshot(after(minutes=minute), account("100000", held)))
    notices: list[tuple[str, str]] = []
    fired: list[int] = []
    for second in range(10, 7200, 10):
        outcome = interpreter.tick(snapshot(after(minutes=15, seconds=second), account("88000", held)))
        notices += texts_of(outcome.notices)
        fired += [second for decision in outcome.decisions if decision.kind != "suspicion"]
    assert fired == ([70] if closes else [])
    assert notices.count(("unexplained", "page")) == 1
