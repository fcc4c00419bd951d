"""Kinds of action: what one must declare, and what a stage does whatever accounts hold."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest

from killswitch.graph.actions import registry as graph_registry
from killswitch.graph.actions.close import whole_close
from killswitch.graph.actions.lock_trading import KIND as LOCKING
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import Action
from killswitch.model.effects import Cancels, Lock, LockOrder
from killswitch.model.instant import MINUTE, to_micros
from killswitch.model.record import RegistryError
from killswitch.planning.actions import registry
from killswitch.planning.actions.kind import ActionPlan, Context, NoBookError, Planned
from killswitch.planning.actions.registry import certain_effects, check_reversible, plan, reversible_effects
from killswitch.planning.scopes.evaluator import ActiveSuspicion
from tests.graphs import close, stage
from tests.worlds import START, after

NOW = to_micros(START)
LOCK = LockTrading("all", 5 * MINUTE)
WRITTEN = Lock(LockOrder("account/main", "all", after(minutes=5)))


class Unregistered(Action):
    """An action that no registry has."""


def test_an_action_that_no_registry_has_is_refused() -> None:
    """Wherever a stage with it goes: nothing skips over what it does not know."""
    for ask in (graph_registry.kind_of, lambda each: plan(each, Context("account/main", stage("s", 1), NOW))):
        with pytest.raises(RegistryError, match="is of no kind that ACTIONS has"):
            ask(Unregistered())
    with pytest.raises(RegistryError, match="`sell_all` is no action: there are lock_trading, cancel_orders, close"):
        graph_registry.kind_named("sell_all")


def test_what_a_kind_does_it_has_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that says it cancels too would cancel where nobody reckons with it."""
    wrong = ActionPlan("lock_trading", lambda _action, _context: Planned(effects=(Cancels(()),)))
    monkeypatch.setitem(registry._BY_KEY, "lock_trading", wrong)
    with pytest.raises(RegistryError, match="`lock_trading` has the effect `cancels`, which it does not declare"):
        plan(LOCK, Context("account/main", stage("s", 1), NOW))


def test_a_kind_says_what_its_effects_say_of_taking_it_back() -> None:
    """What cannot be taken back is not done on suspicion, whatever its kind claims."""
    check_reversible([LOCKING])
    with pytest.raises(RegistryError, match="`lock_trading` says that it is not reversible"):
        check_reversible([replace(LOCKING, is_reversible=False)])
    with pytest.raises(RegistryError, match="`lock_trading` says that it is reversible"):
        check_reversible([replace(LOCKING, effects=("lock", "orders"))])


def test_what_a_stage_does_whatever_accounts_hold_needs_no_book() -> None:
    """Its locks, merged; a close asks for the book, and is told where its kind denies that."""
    locking = stage("s", 1, actions=(close(), LOCK, LockTrading("reduce_only", MINUTE)))
    assert certain_effects("account/main", locking, NOW) == (WRITTEN,)
    assert reversible_effects("account/main", locking, NOW) == (WRITTEN,)
    with pytest.raises(NoBookError, match="an action of stage s accesses the book"):
        plan(close(), Context("account/main", stage("s", 1), NOW))


def test_the_close_of_everything_keeps_what_every_close_keeps() -> None:
    """By the first one's unwinding, ranked by default where the policy has that; nothing where nothing closes."""
    one = close("losing", "0.5", ranking="own", top=2, except_assets=("USDT", "USDC"), unwinding="slow")
    other = close("long", "0.2", except_assets=("USDC", "DAI"))
    found = whole_close([LOCK, one, other], ["own"])
    assert found is not None
    kept = (found.side, found.fraction, found.top, found.ranking, found.except_assets, found.unwinding)
    assert kept == ("both", Decimal(1), None, "own", ("USDC",), "slow")
    assert whole_close([one], ["default", "own"]) == replace(
        one, side="both", fraction=Decimal(1), top=None, ranking="default"
    )
    assert whole_close([LOCK], []) is None


def test_what_was_done_on_suspicion_is_kept_as_before() -> None:
    """A stored memory names the stage and its lock, and nothing else where nothing else was done."""
    kept = ActiveSuspicion("s", WRITTEN.order)
    stored = msgspec.json.decode(msgspec.json.encode(kept))
    assert stored.keys() == {"stage", "lock"}
    assert kept.effects == (WRITTEN,)
    assert ActiveSuspicion("s", None).effects == ()
