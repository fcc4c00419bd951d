"""C1: a stage that fires on an answer that leaves a position out closes it as soon as it is shown again."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import SignalRef
from killswitch.model.decision import Decision
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.targets.known_positions import KnownPositions
from killswitch.valuation.snapshot_facts import SnapshotFacts
from tests.graphs import close, graph, policy_set, stage, trigger
from tests.worlds import account, after, fill, position, rules, snapshot

EVERYTHING = policy_set(
    graph(
        (SignalRef("equity.value"),),
        (trigger("poor", 0, 900.0, op="<="),),
        (stage("flatten", 1, 0, actions=(close("both", "1"),)),),
    )
)  # fmt: skip


def book(second: float, equity: str, held: dict[str, str], **more: Any) -> AccountSnapshot:
    """Longs of so many contracts at a mark of 10."""
    found = [position(symbol, "long", "0", contracts=contracts, mark_price="10") for symbol, contracts in held.items()]
    fields = {"margin_used": "5" if held else "0", "observed_at": after(seconds=second), **more}
    return account(equity, found, instruments=tuple(rules(each) for each in "AB"), **fields)


def closed(decisions: tuple[Decision, ...]) -> dict[str, Decimal]:
    return {intent.symbol: intent.contracts for each in decisions for intent in each.intents}


def test_a_position_that_is_left_out_at_the_firing_is_closed_with_the_others() -> None:
    """The executor waits for it to be shown: the decision has its target, and says why."""
    interpreter = Interpreter(EVERYTHING)
    interpreter.tick(snapshot(after(seconds=0), book(0, "1000", {"A": "1", "B": "2"})))
    (decision,) = interpreter.tick(snapshot(after(seconds=1), book(1, "800", {"A": "1"}))).decisions
    assert closed((decision,)) == {"A": Decimal(1), "B": Decimal(2)}
    assert "main leaves out long B without a fill" in (decision.reason or "")


def test_an_empty_answer_at_the_firing_is_not_flat() -> None:
    """The stage fires and closes what was there a second before."""
    interpreter = Interpreter(EVERYTHING)
    interpreter.tick(snapshot(after(seconds=0), book(0, "1000", {"A": "1"})))
    assert closed(interpreter.tick(snapshot(after(seconds=1), book(1, "800", {}))).decisions) == {"A": Decimal(1)}


@pytest.mark.parametrize("contracts", ["NaN", "-1", "1E+40"])
def test_an_impossible_row_while_another_is_left_out_ends_no_run_and_reads_nothing(contracts: str) -> None:
    """The stage fires on what is unknown. The answer is unusable as a whole: it waits, then closes both."""
    unknown_trips = graph(
        (SignalRef("equity.value"),),
        (replace(trigger("poor", 0, 900.0, op="<="), on_unknown="trip"),),
        (stage("flatten", 1, 0, actions=(close("both", "1"),)),),
    )
    interpreter = Interpreter(policy_set(unknown_trips))
    interpreter.tick(snapshot(after(seconds=0), book(0, "1000", {"A": "1", "B": "2"})))
    interpreter.tick(snapshot(after(seconds=1), book(1, "1000", {"A": "1"})))
    (decision,) = interpreter.tick(snapshot(after(seconds=2), book(2, "1000", {"A": contracts}))).decisions
    assert closed((decision,)) == {}
    whole = interpreter.tick(snapshot(after(seconds=3), book(3, "800", {"A": "1", "B": "2"})))
    assert closed(whole.decisions) == {"A": Decimal(1), "B": Decimal(2)}


def test_what_a_fill_explains_is_not_planned_for() -> None:
    """B was sold by its bot."""
    interpreter = Interpreter(EVERYTHING)
    interpreter.tick(snapshot(after(seconds=0), book(0, "1000", {"A": "1", "B": "2"})))
    sold = (fill("f", after(seconds=1), "B", "sell", "2", "10"),)
    (decision,) = interpreter.tick(snapshot(after(seconds=1), book(1, "800", {"A": "1"}, fills=sold))).decisions
    assert closed((decision,)) == {"A": Decimal(1)}


def observed(known: KnownPositions, second: float, held: dict[str, str], *closing: str, **more: Any) -> list[str]:
    """The symbols that the answer of that second leaves out."""
    answer = book(second, "1000", held, **more)
    facts = SnapshotFacts(to_micros(after(seconds=second)), (answer,), {})
    known.observe(facts, [("main", symbol, "long") for symbol in closing])
    return [row.symbol for row in known.missing(answer)]


def test_what_a_close_of_ours_works_on_is_not_missing() -> None:
    """Also for a while after its end: positions may lag."""
    known = KnownPositions()
    assert observed(known, 0, {"A": "1", "B": "2"}) == []
    assert observed(known, 1, {"A": "1", "B": "2"}, "A") == []
    assert observed(known, 12, {"B": "2"}) == []
    assert observed(known, 13, {}) == ["B"]


def test_a_partial_sale_does_not_explain_that_all_is_gone() -> None:
    """Two of three contracts are sold, and none is shown."""
    known = KnownPositions()
    observed(known, 0, {"A": "3"})
    assert observed(known, 1, {}, fills=(fill("f", after(seconds=1), "A", "sell", "2", "10"),)) == ["A"]


def test_an_entry_or_a_sale_of_the_other_side_explains_nothing() -> None:
    """Of a hedge-mode account: the sale was of the short side."""
    for more in ({"side": "buy"}, {"side": "sell", "position_side": "short"}):
        known = KnownPositions()
        observed(known, 0, {"A": "3"})
        side = more.pop("side")
        assert observed(known, 1, {}, fills=(fill("f", after(seconds=1), "A", side, "3", "10", **more),)) == ["A"]


def test_a_position_that_is_shown_again_is_not_missing_and_counts_from_the_start() -> None:
    """Three answers in a row must agree."""
    known = KnownPositions()
    observed(known, 0, {"A": "1"})
    assert [observed(known, second, {}) for second in (1, 2)] == [["A"], ["A"]]
    assert observed(known, 3, {"A": "1"}) == []
    assert [observed(known, second, {}) for second in (6, 9, 11)] == [["A"], ["A"], []]


def test_holdings_are_not_remembered() -> None:
    """An asset that was withdrawn is gone, and an order for it might sell what is somebody else's."""
    known = KnownPositions()
    observed(known, 0, {"A": "1"}, market="spot")
    assert observed(known, 1, {}, market="spot") == []


def test_an_account_that_cannot_be_read_has_no_missing_position() -> None:
    """Nothing is known of it now: its last known positions count instead, with what the last answer left out."""
    known = KnownPositions()
    observed(known, 0, {"A": "1", "B": "1"})
    assert observed(known, 1, {"A": "1"}) == ["B"]
    assert observed(known, 2, {}, quality="down") == []
    last = known.last_held("main")
    assert last is not None
    assert [row.symbol for row in last.positions or ()] == ["A", "B"]
