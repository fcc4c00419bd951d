"""Action kinds: what each must declare, and which effects of a stage do not depend on the book."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from msgspec.structs import replace

from killswitch.graph.actions import registry as graph_registry
from killswitch.graph.actions.close import whole_close
from killswitch.graph.actions.exit_process import ExitProcess
from killswitch.graph.actions.lock_trading import KIND as LOCKING
from killswitch.graph.actions.lock_trading import LockTrading
from killswitch.graph.nodes import Action
from killswitch.model.effects import Cancels, Lock, LockOrder, ProcessExit, with_expiry
from killswitch.model.instant import HOUR, MINUTE, LocalTime, to_micros
from killswitch.model.registry import RegistryError
from killswitch.model.snapshot import LockPart
from killswitch.model.words import Weekday
from killswitch.planning.actions import registry
from killswitch.planning.actions.kind import ActionPlan, Context, NoBookError, Planned
from killswitch.planning.actions.registry import certain_effects, check_reversible, plan, reversible_effects
from killswitch.planning.scopes.evaluator import ActiveSuspicion
from killswitch.signals.sessions import TradingSession
from tests.graphs import close, stage
from tests.worlds import START, after

NOW = to_micros(START)
LOCK = LockTrading("all", 5 * MINUTE)
WRITTEN = Lock(LockOrder("account/main", "all", after(minutes=5)))


class Unregistered(Action, frozen=True):
    """An action that no registry has."""


def test_an_action_that_no_registry_has_is_refused() -> None:
    """Graph and planning both refuse a stage with it; an unknown action is never skipped."""
    for look_up in (graph_registry.action_kind, lambda each: plan(each, Context("account/main", stage("s", 1), NOW))):
        with pytest.raises(RegistryError, match="is of no kind that ACTIONS has"):
            look_up(Unregistered())
    with pytest.raises(
        RegistryError,
        match="`sell_all` is no action: there are lock_trading, cancel_orders, close, reduce, neutralise, "
        "top_up_margin, exit_process",
    ):
        graph_registry.kind_named("sell_all")


def test_an_exit_needs_no_book_and_never_happens_on_suspicion() -> None:
    """It is certain whatever the accounts hold, is one however often it is written, and cannot be reversed."""
    stop = stage("s", 1, actions=(LOCK, ExitProcess(), ExitProcess()))
    assert certain_effects("account/main", stop, NOW)[1:] == (ProcessExit(),)
    assert [type(each) for each in reversible_effects("account/main", stop, NOW)] == [Lock]


def test_an_effect_that_a_kind_does_not_declare_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that also cancelled would cancel where nothing expects it."""
    wrong = ActionPlan("lock_trading", lambda _action, _context: Planned(effects=(Cancels(()),)))
    monkeypatch.setattr(registry, "PLANS", (wrong,))
    with pytest.raises(RegistryError, match="`lock_trading` has the effect `cancels`, which it does not declare"):
        plan(LOCK, Context("account/main", stage("s", 1), NOW))


def test_a_kind_is_reversible_exactly_if_its_effects_are() -> None:
    """What cannot be reversed is not done on suspicion, whatever its kind claims."""
    check_reversible([LOCKING])
    with pytest.raises(RegistryError, match="`lock_trading` says that it is not reversible"):
        check_reversible([replace(LOCKING, is_reversible=False)])
    with pytest.raises(RegistryError, match="`lock_trading` says that it is reversible"):
        check_reversible([replace(LOCKING, effects=("lock", "orders"))])


def test_effects_that_do_not_depend_on_positions_need_no_book() -> None:
    """The locks of the stage are merged; a close needs the book, and an error says so where its kind denies that."""
    locking = stage("s", 1, actions=(close(), LOCK, LockTrading("reduce_only", MINUTE)))
    assert certain_effects("account/main", locking, NOW) == (WRITTEN,)
    assert reversible_effects("account/main", locking, NOW) == (WRITTEN,)
    with pytest.raises(NoBookError, match="an action of stage s accesses the book"):
        plan(close(), Context("account/main", stage("s", 1), NOW))


def test_a_lock_of_a_side_is_next_to_that_of_everything() -> None:
    """A stage locks all for 5 minutes, and long entries in two symbols without end: both, each with its own end."""
    long = LockTrading("reduce_only", None, "long", ("BTC_USDT", "ETH_USDT"))
    locking = stage("s", 1, actions=(LOCK, long))
    (effect,) = certain_effects("account/main", locking, NOW)
    assert effect == Lock(
        LockOrder(
            "account/main", "all", None,
            (
                LockPart("all", after(minutes=5), None, None),
                LockPart("reduce_only", None, "long", ("BTC_USDT", "ETH_USDT")),
            ),
        )
    )  # fmt: skip


def test_a_lock_ends_at_the_next_time_of_the_day_after_the_firing() -> None:
    """START is midnight UTC on 2024-01-01: 01:00 in Berlin, so that 00:30 there is on the next day."""
    until = LockTrading("reduce_only", None, until=LocalTime(8, 0, "Europe/Berlin"))
    assert certain_effects("account/main", stage("s", 1, actions=(until,)), NOW) == (
        Lock(LockOrder("account/main", "reduce_only", after(hours=7))),
    )
    tomorrow = LockTrading("reduce_only", None, until=LocalTime(0, 30, "Europe/Berlin"))
    assert certain_effects("account/main", stage("s", 1, actions=(tomorrow,)), NOW) == (
        Lock(LockOrder("account/main", "reduce_only", after(hours=23.5))),
    )


def test_a_lock_ends_at_the_next_open_of_a_session() -> None:
    """START is Monday, 2024-01-01, a holiday of the session: it opens on Tuesday at 09:30 in New York, 14:30 UTC."""
    days: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri")
    session = TradingSession("xnys", "America/New_York", 9 * HOUR + 30 * MINUTE, 16 * HOUR, days, ("2024-01-01",))
    until = LockTrading("all", None, until_session=session)
    assert certain_effects("account/main", stage("s", 1, actions=(until,)), NOW) == (
        Lock(LockOrder("account/main", "all", after(hours=24 + 14.5))),
    )
    assert LOCKING.text(until, ()) == "lock all until xnys opens"


def test_a_lock_of_a_part_that_ends_early_ends_in_every_part() -> None:
    """On suspicion a lock lasts 20 s, whatever its parts say; a part that ends before keeps its end."""
    parts = (LockPart("all", after(minutes=5), "long"), LockPart("all", after(seconds=5), "short"))
    ended = with_expiry(Lock(LockOrder.of("account/main", parts)), after(seconds=20))
    assert isinstance(ended, Lock)
    assert (ended.order.until, [part.until for part in ended.order.only]) == (
        after(seconds=20), [after(seconds=20), after(seconds=5)]
    )  # fmt: skip


def test_the_text_of_a_lock_names_its_part_and_its_end() -> None:
    """As `graph` and `plan` show it."""
    texts = [
        LOCKING.text(each, ())
        for each in (
            LOCK,
            LockTrading("reduce_only", None, "long", ("BTC_USDT",), LocalTime(8, 0, "Europe/Berlin")),
            LockTrading("reduce_only", None, None, ("BTC_USDT", "ETH_USDT")),
        )
    ]
    assert texts == [
        "lock all for 5m",
        "lock reduce_only of long in BTC_USDT until 08:00 Europe/Berlin",
        "lock reduce_only of BTC_USDT and ETH_USDT",
    ]


def test_a_whole_close_excludes_the_assets_that_every_close_excludes() -> None:
    """The first close's unwinding applies, ranked by default where the policy has that; None where no action closes."""
    one = close("losing", "0.5", ranking="own", top=2, except_assets=("USDT", "USDC"), unwinding="slow")
    other = close("long", "0.2", except_assets=("USDC", "DAI"))
    whole = whole_close([LOCK, one, other], ["own"])
    assert whole is not None
    kept = (whole.side, whole.fraction, whole.top, whole.ranking, whole.except_assets, whole.unwinding)
    assert kept == ("both", Decimal(1), None, "own", ("USDC",), "slow")
    assert whole_close([one], ["default", "own"]) == replace(
        one, side="both", fraction=Decimal(1), top=None, ranking="default"
    )
    assert whole_close([LOCK], []) is None


def test_the_stored_format_of_an_active_suspicion_is_unchanged() -> None:
    """A stored state names the stage and its lock, and nothing else where nothing else was done."""
    suspicion = ActiveSuspicion("s", WRITTEN.order)
    stored = msgspec.json.decode(msgspec.json.encode(suspicion))
    assert stored.keys() == {"stage", "lock"}
    assert suspicion.effects == (WRITTEN,)
    assert ActiveSuspicion("s", None).effects == ()
