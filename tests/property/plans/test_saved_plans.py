"""A saved plan is applied if and only if the book is unchanged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from killswitch.model.snapshot import Snapshot
from killswitch.planning.operator.plan_file import decode_plan, encode_plan
from tests.unit.planning.operator.test_saved_plans import applied, book, held, order, plan_of
from tests.worlds import after, rules

BOOKS = st.dictionaries(st.sampled_from("ABCD"), st.sampled_from(("1", "2", "3.5")), min_size=1)
ORDERS = st.dictionaries(st.sampled_from(("o1", "o2", "o3")), st.sampled_from(("1", "2")))
RULES = tuple(rules(symbol) for symbol in "ABCD")


@given(BOOKS, ORDERS, BOOKS, ORDERS)
def test_a_plan_applies_only_to_the_same_book_and_every_difference_is_named(
    positions: dict[str, str], orders: dict[str, str], later: dict[str, str], orders_later: dict[str, str]
) -> None:
    """The intents of an applied plan are the plan's; a refusal names all differences, and no more."""

    def seen(minute: int, held_now: dict[str, str], open_now: dict[str, str]) -> Snapshot:
        resting = tuple(order(id_, amount) for id_, amount in open_now.items())
        return book(after(minutes=minute), held(**held_now), orders=resting, instruments=RULES)

    plan = decode_plan(encode_plan(plan_of(seen(0, positions, orders))))
    outcome = applied(plan, seen(1, later, orders_later))
    moved = {each for each in positions.keys() | later.keys() if positions.get(each) != later.get(each)}
    changed = {each for each in orders.keys() | orders_later.keys() if orders.get(each) != orders_later.get(each)}
    if not moved and not changed:
        (decision,) = outcome.decisions
        assert decision.intents == plan.decisions[0].intents
        return
    assert outcome.decisions == ()
    (notice,) = outcome.notices
    *differences, who = notice.text.removeprefix("the saved plan was not applied: ").split("; ")
    assert who == "the attempt was by operator-1"
    assert {each.split()[0] for each in differences if "long on main" in each} == moved
    assert {each.split()[1] for each in differences if each.startswith("order ")} == changed
    assert len(differences) == len(moved) + len(changed)
