"""A leg that a close leaves naked is hedged, or its hedge suggested, by the rule of the close's unwinding."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace

from killswitch.graph.nodes import PolicySet
from killswitch.model.snapshot import AccountSnapshot
from killswitch.planning.interpreter import Outcome
from killswitch.signals.arguments import HedgeLegs, LegOfHedge
from tests.unit.planning.hedge.test_proxy_hedge import BTC, World, hedge, main, orders, other, policies
from tests.worlds import account, position, rules

D = Decimal
PAIR = HedgeLegs("pair", (LegOfHedge("main", BTC, D(1)), LegOfHedge("third", BTC, D(1))))
HEDGE_ACCOUNT = other((BTC, "100"))
A_MINUTE = timedelta(seconds=61)


def with_pair(made: PolicySet) -> PolicySet:
    (policy,) = made.graphs
    return replace(made, graphs=(replace(policy, hedges=(PAIR,)),))


def third(contracts: str = "10", quality: str = "ok") -> AccountSnapshot:
    """The other leg: short BTC on an account that the policy does not watch."""
    held = position(BTC, "short", "0", contracts=contracts, mark_price="100", notional=str(100 * D(contracts)))
    rows = None if quality != "ok" else [held] if D(contracts) else []
    return account("5000" if rows is not None else None, rows, name="third", quality=quality, instruments=[rules(BTC)])


def flat() -> AccountSnapshot:
    return account("800", [], instruments=[rules(BTC)])


def fallen(world: World, *, leg: AccountSnapshot) -> Outcome:
    """`main` loses a fifth while the other leg is as given; the stage closes everything."""
    world.tick(main(), third(), HEDGE_ACCOUNT)
    return world.tick(main("-200"), leg, HEDGE_ACCOUNT)


def test_naked_leg_is_hedged_once_after_the_declared_time() -> None:
    """Short 10 on an account that cannot be read: 10 are bought on the third, once, and marked as temporary."""
    world = World(with_pair(policies(hedge())))
    fired = fallen(world, leg=third(quality="down"))
    assert [(intent.account, intent.contracts) for each in fired.decisions for intent in each.intents] == [("main", 10)]
    assert not world.tick(flat(), third(quality="down"), HEDGE_ACCOUNT).decisions
    found = world.tick(flat(), third(quality="down"), HEDGE_ACCOUNT, after=A_MINUTE)
    assert orders(found) == [("other", BTC, "long", "buy", D(10), False, "hedge")]
    assert "the other leg of the hedge pair, is closed" in (found.decisions[0].reason or "")
    assert orders(world.tick(flat(), third(quality="down"), HEDGE_ACCOUNT, after=A_MINUTE)) == []


def test_hedge_of_a_naked_leg_is_suggested_where_nothing_may_be_opened() -> None:
    world = World(with_pair(policies(hedge("suggest"))))
    fallen(world, leg=third(quality="down"))
    found = world.tick(flat(), third(quality="down"), HEDGE_ACCOUNT, after=A_MINUTE)
    assert found.decisions == ()
    assert [each.severity for each in found.notices if f"buy 10 {BTC} on other" in each.text] == ["page"]


def test_leg_that_was_closed_with_the_other_is_not_hedged() -> None:
    world = World(with_pair(policies(hedge())))
    fired = fallen(world, leg=third())
    assert {(intent.account, intent.contracts) for each in fired.decisions for intent in each.intents} == {
        ("main", 10), ("third", 10),
    }  # fmt: skip
    assert orders(world.tick(flat(), third("0"), HEDGE_ACCOUNT, after=A_MINUTE)) == []


def test_leg_whose_account_answers_again_is_not_hedged() -> None:
    world = World(with_pair(policies(hedge())))
    fallen(world, leg=third(quality="down"))
    assert orders(world.tick(flat(), third(), HEDGE_ACCOUNT, after=A_MINUTE)) == []


@pytest.mark.parametrize(
    "closed", [main("-200"), account(None, None, quality="down", reason="no answer")], ids=["shown", "unknown"]
)
def test_nothing_is_hedged_while_the_closed_leg_may_still_be_there(closed: AccountSnapshot) -> None:
    world = World(with_pair(policies(hedge())))
    fallen(world, leg=third(quality="down"))
    assert orders(world.tick(closed, third(quality="down"), HEDGE_ACCOUNT, after=A_MINUTE)) == []
