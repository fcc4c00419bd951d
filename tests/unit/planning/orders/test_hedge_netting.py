"""Declared hedges: legs that are selected as one position, cut in one ratio, and reported where they are left naked."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.graph.nodes import AttributionRule, Graph
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import AccountSnapshot, Instrument, Position
from killswitch.planning.interpreter import Interpreter, Outcome
from killswitch.planning.orders.hedge_netting import HeldLeg, common_cut, netted
from killswitch.planning.targets.ranking import candidates
from killswitch.signals.arguments import HedgeLegs, LegOfHedge
from killswitch.signals.history.hedge_positions import changes_by_side
from killswitch.valuation.scope_view import ScopeView
from tests.graphs import FALL_15M, close, graph, policy_set, stage, trigger
from tests.worlds import START, account, after, operator_event, position, rules, snapshot

D = Decimal
SPOT, PERP, OTHER = "BTC/USDT", "BTC_USDT", "SOL_USDT"
CARRY = HedgeLegs("carry", (LegOfHedge("cash", SPOT, D(1)), LegOfHedge("main", PERP, D(1))))
ONE_ACCOUNT = HedgeLegs("carry", (LegOfHedge("main", SPOT, D(1)), LegOfHedge("main", PERP, D(1))))


def held(symbol: str, side: str, contracts: str, pnl: str = "0", price: str = "100") -> Position:
    return position(symbol, side, pnl, contracts=contracts, mark_price=price, notional=str(D(contracts) * D(price)))


def cash(contracts: str, pnl: str = "0", quality: str = "ok", state: str = "open") -> AccountSnapshot:
    """The account of the long leg."""
    rows = None if quality != "ok" else [held(SPOT, "long", contracts, pnl)] if D(contracts) else []
    return account("10000", rows, name="cash", quality=quality, instruments=[rules(SPOT, state=state)])


def main(contracts: str, pnl: str = "0", other: str = "0", equity: str = "100000") -> AccountSnapshot:
    """The account of the short leg, and of a long position that belongs to no hedge."""
    rows = [held(PERP, "short", contracts, pnl), held(OTHER, "long", "10", other)]
    return account(equity, rows, instruments=[rules(PERP), rules(OTHER)])


def policy(
    fraction: str = "0.5", side: str = "both", each: str = "account", hedge: HedgeLegs = CARRY, **more: Any
) -> Graph:
    """A policy on the account `main` that closes this fraction at a fall of 5%."""
    fall = stage(
        "cut",
        1,
        0,
        actions=(close(side, fraction, **more),),
        attribution=AttributionRule(0.65, "none", "none"),
    )
    made = graph((FALL_15M,), (trigger("fall", 0, 0.05),), (fall,), hedges=(hedge,))
    return replace(made, scope=replace(made.scope, each=each, accounts=("main",) if each == "account" else None))


def fire(made: Graph, before: Sequence[AccountSnapshot], fallen: Sequence[AccountSnapshot]) -> Outcome:
    interpreter = Interpreter(policy_set(made))
    for minute in range(16):
        interpreter.tick(snapshot(after(minutes=minute), *before))
    return interpreter.tick(snapshot(after(minutes=16), *fallen))


def cut_of(outcome: Outcome) -> dict[str, Decimal]:
    """Symbol → contracts that are closed, of the decision."""
    (decision,) = outcome.decisions
    return {intent.symbol: intent.contracts for intent in decision.intents}


# Acts


def test_cut_of_one_leg_cuts_the_other_in_the_same_ratio_on_its_own_account() -> None:
    """Half of everything on `main`: 5 of 10 short, 5 of 10 SOL, and 5 of 10 in the account that did not fire."""
    found = fire(policy(), (cash("10"), main("10")), (cash("10"), main("10", "-6000", equity="94000")))
    assert cut_of(found) == {PERP: D(5), OTHER: D(5), SPOT: D(5)}


def test_hedge_is_on_the_side_of_its_net() -> None:
    """Short 8 against long 10 is long 2: a close of the longs takes half of both legs, one of the shorts none."""
    accounts = (cash("10"), main("8"))
    fallen = (cash("10"), main("8", "-6000", equity="94000"))
    assert cut_of(fire(policy(side="long"), accounts, fallen)) == {SPOT: D(5), PERP: D(4), OTHER: D(5)}
    assert not fire(policy(side="short"), accounts, fallen).decisions


def test_hedge_without_a_net_is_on_neither_side_and_closes_only_with_both() -> None:
    accounts, fallen = (cash("10"), main("10")), (cash("10"), main("10", "-6000", equity="94000"))
    assert cut_of(fire(policy(side="long"), accounts, fallen)) == {OTHER: D(5)}
    assert cut_of(fire(policy("1"), accounts, fallen)) == {PERP: D(10), OTHER: D(10), SPOT: D(10)}


def test_loss_of_one_leg_is_not_the_loss_of_its_side() -> None:
    """The short leg loses 5,000 that the long one gains, and SOL loses 1,000: longs have lost, not shorts."""
    one = (held(SPOT, "long", "10"), held(PERP, "short", "10"), held(OTHER, "long", "10"))
    two = (held(SPOT, "long", "10", "5000"), held(PERP, "short", "10", "-5000"), held(OTHER, "long", "10", "-6000"))
    more = [rules(SPOT), rules(PERP), rules(OTHER)]
    before, fallen = (account(equity, rows, instruments=more) for equity, rows in (("100000", one), ("94000", two)))
    without = replace(policy(side="losing"), hedges=())
    assert cut_of(fire(without, [before], [fallen])) == {PERP: D(5)}
    found = fire(policy(side="losing", hedge=ONE_ACCOUNT), [before], [fallen])
    (decision,) = found.decisions
    assert decision.attribution is not None
    assert (decision.attribution.source, cut_of(found)) == ("LONG", {OTHER: D(5)})


def test_loss_is_attributed_to_neither_side_while_a_leg_that_lost_is_unknown() -> None:
    """On which side the hedge is depends on the leg that cannot be read: the stage takes what it declares for that."""
    unread = (cash("10", quality="down"), main("10", "-6000", equity="94000"))
    (decision,) = fire(policy("1"), (cash("10"), main("10")), unread).decisions
    assert decision.attribution is not None
    assert (decision.attribution.source, decision.attribution.long_share) == ("UNKNOWN", None)
    assert "the hedge carry is not netted: BTC/USDT on cash" in (decision.attribution.reason or "")
    assert not fire(policy("1", side="losing"), (cash("10"), main("10")), unread).decisions


def test_loss_is_attributed_while_only_legs_that_made_nothing_are_unknown() -> None:
    unread = (cash("10", quality="down"), main("10", "0", "-6000", equity="94000"))
    (decision,) = fire(policy("1"), (cash("10"), main("10")), unread).decisions
    assert decision.attribution is not None
    assert decision.attribution.source == "LONG"


def test_hedge_counts_as_one_position_of_the_top() -> None:
    """Short 12 against long 10 is short 2, which lost a sixth of 6,000: `top: 1` takes half of both legs."""
    found = fire(policy(top=1), (cash("10"), main("12")), (cash("10"), main("12", "-6000", equity="94000")))
    assert cut_of(found) == {SPOT: D(5), PERP: D(6)}


def test_net_that_gained_is_not_the_worst_however_much_one_leg_lost() -> None:
    """Short 10 against long 12 is long 2: what the short leg lost, the net gained."""
    found = fire(policy(top=1), (cash("12"), main("10")), (cash("12"), main("10", "-6000", equity="94000")))
    assert cut_of(found) == {OTHER: D(5)}


# Must not


@pytest.mark.parametrize(
    ("leg", "why"),
    [
        (cash("10", quality="down"), "carry is not cut: BTC/USDT on cash"),
        (cash("10", state="halted"), "BTC/USDT on cash accepts no orders"),
    ],
)
def test_trim_leaves_a_hedge_whose_other_leg_cannot_be_cut(leg: AccountSnapshot, why: str) -> None:
    found = fire(policy(), (cash("10"), main("10")), (leg, main("10", "-6000", equity="94000")))
    assert cut_of(found) == {OTHER: D(5)}
    assert why in (found.decisions[0].reason or "")


@pytest.mark.parametrize(
    ("leg", "closed"),
    [
        (cash("10", quality="down"), {PERP: D(10), OTHER: D(10)}),
        (cash("10", state="halted"), {PERP: D(10), OTHER: D(10), SPOT: D(10)}),
    ],
)
def test_complete_close_goes_on_and_pages_the_leg_that_it_leaves_naked(
    leg: AccountSnapshot, closed: dict[str, Decimal]
) -> None:
    found = fire(policy("1"), (cash("10"), main("10")), (leg, main("10", "-6000", equity="94000")))
    assert cut_of(found) == closed
    assert [each.severity for each in found.notices if "left naked" in each.text] == ["page"]


def test_leg_that_is_not_held_leaves_a_position_like_any_other() -> None:
    found = fire(policy(), (cash("0"), main("10")), (cash("0"), main("10", "-6000", equity="94000")))
    assert cut_of(found) == {PERP: D(5), OTHER: D(5)}


# Unknown


def test_leg_of_unknown_contract_size_is_not_netted() -> None:
    """Without the venue's rules the net is unknown: a trim leaves the hedge, and pages if it selects nothing else."""
    bare = account("94000", [held(PERP, "short", "10", "-6000")])
    found = fire(policy(), (cash("10"), account("100000", [held(PERP, "short", "10")])), (cash("10"), bare))
    assert found.decisions == ()
    assert "the size of its contracts is unknown" in str(found.alerts)


def test_account_that_is_not_in_the_snapshot_is_unknown() -> None:
    found = fire(policy(), (main("10"),), (main("10", "-6000", equity="94000"),))
    assert cut_of(found) == {OTHER: D(5)}
    assert "its account is not in the snapshot" in (found.decisions[0].reason or "")


# Properties


def leg(symbol: str, side: str, contracts: str, step: str = "0.001", least: str = "0.001", ratio: str = "1") -> HeldLeg:
    row = held(symbol, side, contracts)
    instrument: Instrument = rules(symbol, amount_step=step, min_amount=least)
    seen = ScopeView(to_micros(START), True, (account("1", [row]),), {("main", symbol): instrument}, None)
    (candidate,) = candidates(seen, None)
    return HeldLeg(candidate, D(contracts) * D(ratio) * (1 if side == "long" else -1), instrument)


STEPS = st.sampled_from(["1", "0.1", "0.01", "0.003"])
SIZES = st.decimals(min_value="0.5", max_value="200", places=2)


@given(
    st.lists(st.tuples(st.sampled_from(["long", "short"]), SIZES, STEPS), min_size=2, max_size=3), st.integers(1, 99)
)
def test_cut_never_makes_the_net_larger(rows: list[tuple[str, Decimal, str]], percent: int) -> None:
    legs = [leg(f"S{i}", side, str(size), step, step) for i, (side, size, step) in enumerate(rows)]
    left = common_cut(legs, D(percent) / 100)
    if left is None:
        return
    net = sum((each.units for each in legs), D(0))
    rest = sum(
        (one.units * kept / one.candidate.position.contracts for one, kept in zip(legs, left, strict=True)), D(0)
    )
    assert abs(rest) <= abs(net)
    assert all(D(0) <= kept < one.candidate.position.contracts for one, kept in zip(legs, left, strict=True))


@given(st.tuples(SIZES, SIZES), st.integers(1, 99))
def test_two_legs_of_one_step_are_cut_as_near_as_a_search_of_all_steps_finds(
    sizes: tuple[Decimal, Decimal], percent: int
) -> None:
    """Against every pair of whole steps within 1.5 steps of the ratio: the fraction is missed by no more."""
    step, kept = D("0.5"), D(percent) / 100
    legs = [leg("A", "long", str(sizes[0]), "0.5", "0.5"), leg("B", "short", str(sizes[1]), "0.5", "0.5")]
    left = common_cut(legs, kept)
    net = abs(sizes[0] - sizes[1])

    def near(size: Decimal) -> list[Decimal]:
        cuts = [step * n for n in range(1, int(size / step) + 1)]
        rests = [size - cut for cut in cuts if size - cut >= step or cut == cuts[-1]]
        return [rest for rest in rests if abs(rest - size * kept) <= D("1.5") * step]

    found = [abs(a + b - kept * sum(sizes)) for a, b in product(near(sizes[0]), near(sizes[1])) if abs(a - b) <= net]
    if left is None:
        assert not found or min(found) > step / 2
    elif found:
        assert abs(sum(left, D(0)) - kept * sum(sizes)) <= min(found) + 2 * step


@given(st.permutations([0, 1, 2]), SIZES, SIZES)
def test_netting_does_not_depend_on_the_order_of_the_positions(order: list[int], long: Decimal, short: Decimal) -> None:
    rows = [held(SPOT, "long", str(long), "-3"), held(PERP, "short", str(short), "1"), held(OTHER, "long", "7", "-1")]
    known = {("main", symbol): rules(symbol) for symbol in (SPOT, PERP, OTHER)}

    def shown(rows: list[Position]) -> set[tuple[object, ...]]:
        seen = ScopeView(to_micros(START), True, (account("1000", rows),), known, None)
        book = netted(candidates(seen, None), seen, [ONE_ACCOUNT]).candidates
        return {(each.key, each.value, each.pnl, each.is_flat) for each in book}

    assert shown([rows[i] for i in order]) == shown(rows)


def test_what_a_hedge_without_a_net_made_is_half_of_either_side() -> None:
    rows = [held(SPOT, "long", "10"), held(PERP, "short", "10")]
    known = {("main", symbol): rules(symbol) for symbol in (SPOT, PERP)}
    seen = ScopeView(to_micros(START), True, (account("1000", rows),), known, None)
    change = {("main", SPOT, "long"): D(-30), ("main", PERP, "short"): D(20), ("main", "X", "short"): D(-4)}
    assert changes_by_side(change, [ONE_ACCOUNT], seen) == (D(-5), D(-9))


MADE = st.decimals(min_value="-1000", max_value="1000", places=2)


@given(MADE, MADE, MADE, SIZES, SIZES)
def test_what_both_sides_made_is_what_the_positions_made(
    long: Decimal, short: Decimal, other: Decimal, size: Decimal, against: Decimal
) -> None:
    """And a pair that made nothing together changes no side, whatever its net is."""
    rows = [held(SPOT, "long", str(size)), held(PERP, "short", str(against))]
    known = {("main", symbol): rules(symbol) for symbol in (SPOT, PERP)}
    seen = ScopeView(to_micros(START), True, (account("1000", rows),), known, None)

    def sides(one: Decimal, two: Decimal) -> tuple[Decimal, Decimal]:
        change = {("main", SPOT, "long"): one, ("main", PERP, "short"): two, ("main", OTHER, "long"): other}
        found = changes_by_side(change, [ONE_ACCOUNT], seen)
        assert not isinstance(found, str)
        return found

    assert sum(sides(long, short)) == long + short + other
    assert sides(long, -long) == (other, D(0))


@pytest.mark.parametrize(
    ("legs", "sides"),
    [
        (("0", "0"), (D(5), D(5))),  # both are closed
        (("0", "10"), (D(0), D(10))),  # what is left is short
        (("10", "0"), (D(10), D(0))),
    ],
)
def test_what_closed_legs_made_counts_with_the_hedge(legs: tuple[str, str], sides: tuple[Decimal, Decimal]) -> None:
    """The long leg lost 40, and the short one made 50."""
    sizes = zip((SPOT, PERP), ("long", "short"), legs, strict=True)
    rows = [held(symbol, side, size) for symbol, side, size in sizes if size != "0"]
    known = {("main", symbol): rules(symbol) for symbol in (SPOT, PERP)}
    seen = ScopeView(to_micros(START), True, (account("1000", rows),), known, None)
    change = {("main", SPOT, "long"): D(-40), ("main", PERP, "short"): D(50)}
    assert changes_by_side(change, [ONE_ACCOUNT], seen) == sides


@pytest.mark.parametrize(
    ("leg", "says"),
    [
        (cash("10"), "BTC/USDT on cash, which this close does not reach"),
        (cash("10", quality="down"), "which cannot be read"),
        (cash("0"), None),
    ],
)
def test_close_by_hand_of_one_account_pages_the_leg_that_it_leaves(leg: AccountSnapshot, says: str | None) -> None:
    """Whoever closes one account by hand decides that alone: the leg elsewhere stays, and is named."""
    interpreter = Interpreter(policy_set(policy()))
    interpreter.tick(snapshot(after(minutes=0), cash("10"), main("10")))
    command = operator_event("close", after(minutes=1), "account/main")
    outcome = interpreter.tick(snapshot(after(minutes=1), leg, main("10"), events=[command]))
    assert {intent.symbol for each in outcome.decisions for intent in each.intents} == {PERP, OTHER}
    naked = [each.text for each in outcome.notices if "left naked" in each.text]
    assert len(naked) == (says is not None)
    assert says is None or says in naked[0]
