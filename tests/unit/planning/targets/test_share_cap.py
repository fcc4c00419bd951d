"""The share cap: after the close no selected position is worth more than its share of the gross at firing."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from killswitch.graph.actions.close import Close
from killswitch.graph.nodes import CorrelationGroupRule
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Position
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.targets.ranking import candidates
from killswitch.planning.targets.selection import Selection, select
from killswitch.valuation.scope_view import ScopeView
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.shown import decision_lines
from tests.worlds import START, account, after, position, snapshot


def selected(action: Close, *accounts: AccountSnapshot, groups: tuple[CorrelationGroupRule, ...] = ()) -> Selection:
    view = ScopeView(to_micros(START), True, accounts, {}, None)
    made = graph((FALL_15M,), (), (), groups=groups)
    return select(made, action, candidates(view, None), "UNKNOWN", None, {})


def contracts_left(selection: Selection) -> dict[str, Decimal]:
    """Symbol → contracts to be left."""
    return {target.ranked.candidate.position.symbol: target.contracts for target in selection.targets}


def position_worth(symbol: str, notional: str | None, contracts: str = "10") -> Position:
    more = {} if notional is None else {"notional": notional}
    return position(symbol, "long", "-1", contracts=contracts, **more)


def test_a_position_above_the_cap_is_brought_down_to_it_and_the_others_by_the_fraction() -> None:
    """Gross 10,000 and 12.5%: 8,000 in 10 contracts leave 1,250, which is 1.5625 contracts; 2,000 leave half."""
    found = selected(
        close("both", "0.5", share_cap=Decimal("0.125")),
        account("1", [position_worth("BIG", "8000"), position_worth("SMALL", "2000")]),
    )
    assert (contracts_left(found), found.remarks) == ({"BIG": Decimal("1.5625"), "SMALL": Decimal(5)}, ())


def test_the_gross_is_that_of_the_scope_not_of_what_is_selected() -> None:
    """A cap of 12.5% of 10,000 for the one symbol that is closed, whatever else is held."""
    found = selected(
        close("both", "0.5", share_cap=Decimal("0.125"), symbols=("BIG",)),
        account("1", [position_worth("BIG", "4000"), position_worth("KEPT", "6000")]),
    )
    assert contracts_left(found) == {"BIG": Decimal("3.125")}


def test_a_position_of_unknown_value_is_closed_completely_with_a_remark() -> None:
    """No remainder of it is surely under the cap; the others' cap is of the known 8,000, which is stricter."""
    found = selected(
        close("both", "0.5", share_cap=Decimal("0.125")),
        account("1", [position_worth("BIG", "8000"), position_worth("BLIND", None)]),
    )
    assert contracts_left(found) == {"BIG": Decimal("1.25"), "BLIND": Decimal(0)}
    assert found.remarks == (
        "the value of BLIND is unknown: closed completely because of the share cap",
        "the gross is not wholly known: the share cap applies to the part that is",
    )


def test_a_worthless_position_is_under_every_cap() -> None:
    """It keeps what the fraction leaves; nothing is divided by its value."""
    found = selected(
        close("both", "0.5", share_cap=Decimal("0.1")),
        account("1", [position_worth("NIL", "0"), position_worth("ANY", "10")]),
    )
    assert contracts_left(found)["NIL"] == Decimal(5)


def test_without_a_conversion_each_currency_is_capped_by_its_own_gross() -> None:
    """1 BTC of notional is not added to 10,000 USDT; the cap applies to the gross in the position's own currency."""
    found = selected(
        close("both", "0.5", share_cap=Decimal("0.1")),
        account("1", [position_worth("LINEAR", "10000")]),
        account("1", [position_worth("INVERSE", "1")], name="coin", currency="BTC"),
    )
    assert contracts_left(found) == {"LINEAR": Decimal(1), "INVERSE": Decimal(1)}
    assert found.remarks == ("the gross is not wholly known: the share cap applies to the part that is",)


def test_the_decision_records_positions_of_unknown_value_under_the_cap() -> None:
    """`reason` of a firing names the position of unknown value; a decision without one has no reason."""
    capped = close("both", "0.5", share_cap=Decimal("0.6"))
    made = policy_set(
        graph((FALL_15M,), (trigger("fall", 0, 0.05),), (stage("trim", 1, 0, actions=(capped,)),)),
    )
    reasons = []
    for notional in ("1000", None):
        interpreter = Interpreter(made)
        before, fallen = (
            [position("A", "long", pnl, notional="1000"), position_worth("B", notional)] for pnl in ("0", "-10000")
        )
        interpreter.tick(snapshot(after(minutes=0), account("100000", before)))
        outcome = interpreter.tick(snapshot(after(minutes=1), account("90000", fallen)))
        reasons += [decision.reason for decision in outcome.decisions]
    assert reasons[0] is None
    assert reasons[1] is not None
    assert "the value of B is unknown: closed completely" in reasons[1]


sizes = st.decimals(min_value="0.01", max_value="1000000", places=2)


@given(
    st.lists(st.tuples(sizes, st.one_of(st.none(), sizes)), min_size=1, max_size=9),
    st.decimals(min_value="0.01", max_value="1", places=3),
    st.decimals(min_value="0.01", max_value="1", places=2),
)
def test_no_position_is_left_above_the_cap_or_above_the_fraction_or_below_nothing(
    rows: list[tuple[Decimal, Decimal | None]], cap: Decimal, fraction: Decimal
) -> None:
    """For every book, cap and fraction; several contracts' value, to within a division's last digit."""
    book = [
        position_worth(f"S{i}", None if value is None else str(value), str(held))
        for i, (held, value) in enumerate(rows)
    ]
    found = contracts_left(selected(close("both", str(fraction), share_cap=cap), account("1", book)))
    known = sum((value for _, value in rows if value is not None), Decimal(0))
    for i, (held, value) in enumerate(rows):
        kept = found[f"S{i}"]
        assert 0 <= kept <= held * (1 - fraction)
        assert kept == 0 if value is None else kept / held * value <= cap * known * (1 + Decimal("1e-20"))


def test_replay_prints_positions_of_unknown_value_under_the_cap() -> None:
    """`note:` and the reason, between the triggers and the orders."""
    capped = close("both", "0.5", share_cap=Decimal("0.6"))
    interpreter = Interpreter(
        policy_set(graph((FALL_15M,), (trigger("fall", 0, 0.05),), (stage("trim", 1, 0, actions=(capped,)),)))
    )
    for minute, pnl, equity in ((0, "0", "100000"), (1, "-10000", "90000")):
        outcome = interpreter.tick(snapshot(after(minutes=minute), account(equity, [position("A", "long", pnl)])))
    (decision,) = outcome.decisions
    (note,) = [line for line in decision_lines(decision) if line.startswith("  note: ")]
    assert note.startswith("  note: the value of A is unknown: closed completely because of the share cap")
