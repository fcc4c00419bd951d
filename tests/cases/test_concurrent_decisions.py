"""Several decisions, positions and slices at once: none waits for another, and together they do what was decided."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from msgspec.structs import replace

from killswitch.model.decision import Decision, Unwinding
from killswitch.model.venue import Cost, RateLimit, VenueDescription
from killswitch.ratelimit.budget import RequestBudgets
from tests.faults.exchange import Key, Market
from tests.faults.scene import Scene, committed, decision_on, long
from tests.faults.wire import KNOWN

BTC, ETH = long("BTC", "ETH")
ONE = Decimal(1)


def sliced(count: int, each: str = "1", unwinding: Unwinding | None = None) -> Callable[[Decision], Decision]:
    """The first intent of a decision, in so many slices."""

    def change(decision: Decision) -> Decision:
        part = replace(decision.intents[0], contracts=Decimal(each))
        return replace(decision, intents=(part,) * count, unwinding=unwinding)

    return change


def metered(traits: VenueDescription) -> dict[str, object]:
    return {"budget": RequestBudgets().of("main", "exchange", traits, Decimal("0.5"))}


def test_c23_an_urgent_close_is_not_held_to_the_pace_of_the_one_before_it() -> None:
    """Ten slices at one a minute are being sent; a manual close of the same position takes over at once."""
    scene = Scene({BTC: 10})
    scene.decide({BTC: 0}, change=sliced(10, unwinding=Unwinding("slow", max_orders_per_minute=1)))
    scene.at(5.0, lambda: scene.decide({BTC: 0}, change=lambda d: replace(d, level=3, kind="manual")))
    assert scene.play() == {"d1": "flat", "d2": "flat"}
    assert max(deed.at for deed in scene.exchange.deeds) < 10.0


def test_c23_a_trim_counts_what_was_closed_since_it_was_planned_live_and_after_a_restart() -> None:
    """An order of the first trim fills between the second's plan and its start, and someone buys back: 6 go, not 11."""

    def sold(kills: list[float]) -> Decimal:
        scene = Scene({BTC: 10})
        scene.decide({BTC: 5})
        scene.at(0.06, lambda: scene.decide({BTC: 4}))
        scene.at(0.25, lambda: scene.exchange.trade(BTC, Decimal(5)))
        scene.time.run(scene.live_through(60, kills))
        return sum((order.filled for order in scene.orders("BTC")), Decimal(0))

    assert sold([]) == sold([0.245]) == 6


def test_c3_what_a_restart_knows_of_a_position_does_not_depend_on_other_decisions() -> None:
    """Twenty decisions of others were recorded since one that has ended here: a restart still knows it."""

    def left(others: int) -> Decimal:
        scene = Scene({BTC: 10, ETH: 10}, markets=[Market("ETH", state="halted"), Market("BTC", state="halted")])
        scene.decide({BTC: 5, ETH: 0})
        scene.at(0.20, lambda: scene.decide({BTC: 4}))
        scene.at(0.30, lambda: setattr(scene.exchange.markets["BTC"], "state", "open"))

        def record_others() -> None:
            for number in range(others):
                made = decision_on(scene.exchange, f"o{number}", scene.time.now(), {})
                committed(scene.store, replace(made, mode="observe"))

        scene.at(3.0, record_others)
        scene.at(10.0, lambda: scene.exchange.trade(BTC, Decimal(6)))
        scene.time.run(scene.live_through(60, [5.0]))
        return scene.held(BTC)[0]

    assert left(0) == left(20)


def test_c14_a_symbol_that_has_used_up_its_own_limit_delays_no_other() -> None:
    """Two orders in 30 s for each symbol: BTC has ten slices left, and ETH is closed at once."""
    traits = VenueDescription(limits=(RateLimit("orders", 2, 30.0, by="symbol"),), costs=(Cost("submit", "orders", 1),))
    scene = Scene({BTC: 10, ETH: 10}, traits=traits, closing=metered(traits))
    scene.decide({BTC: 0}, change=sliced(10))
    scene.at(2.0, lambda: scene.decide({ETH: 0}, change=lambda d: replace(d, level=1)))
    scene.play(patience=400)
    assert min(deed.at for deed in scene.exchange.deeds if deed.key == ETH) < 4


def test_c14_an_endless_query_leaves_orders_their_reserved_budget() -> None:
    """Sixty requests a minute, and a trim that is queried for ever: twenty orders leave all the same."""
    names = [f"S{number}" for number in range(20)]
    calls = (("submit", 1), ("snapshot", 5), ("find_order", 1), ("cancel", 1), ("open_orders", 1), ("fills", 1))
    traits = VenueDescription(
        limits=(RateLimit("all", 60, 60.0),),
        costs=tuple(Cost(call, "all", units) for call, units in calls),  # type: ignore[arg-type] # literals
        order_life=KNOWN.order_life,
    )
    from tests.faults.mishaps import Rule

    rules = [Rule("submit", "lost", "BTC"), Rule("find_order", "lost", "BTC", times=10**6)]
    scene = Scene({BTC: 10} | dict.fromkeys(long(*names), 1), *rules, traits=traits, closing=metered(traits))
    scene.decide({BTC: 5})
    scene.at(90.0, lambda: scene.decide(dict.fromkeys(long(*names), 0)))
    scene.play(patience=500)
    assert max(deed.at for deed in scene.exchange.deeds if deed.key != BTC) < 90 + 15


def test_c25_slices_leave_in_the_order_of_the_plan() -> None:
    """Five slices of the long, the whole short, five slices: never more than half of the long is uncovered."""
    short: Key = ("ETH", "short")
    scene = Scene({BTC: 10, short: 10})

    def in_turn(decision: Decision) -> Decision:
        sale = replace(decision.intents[0], contracts=ONE)
        cover = decision.intents[1]
        return replace(decision, intents=(*(sale,) * 5, cover, *(sale,) * 5))

    scene.decide({BTC: 0, short: 0}, change=in_turn)
    assert scene.play() == {"d1": "flat"}
    course = [deed.key for deed in scene.exchange.deeds if deed.actor == "ours"]
    assert course == [BTC] * 5 + [short] + [BTC] * 5
