"""What `status` and `plan` show of catastrophe stops: every position, what rests there, and what is naked."""

from __future__ import annotations

from decimal import Decimal

from msgspec.structs import replace

from killswitch.graph.nodes import CatastropheStopRule, StopTwin
from killswitch.model.snapshot import AccountSnapshot, Instrument, Order, Position
from killswitch.model.words import Place
from killswitch.operations.pages.status_sections import catastrophe_stops, planned_stops
from killswitch.planning.catastrophe_stops import stops_now
from killswitch.render.document import section_text
from killswitch.runner.dead_man.catastrophe_stops import StopView

D = Decimal
RULE = CatastropheStopRule(
    "far", ("main",), None, D("0.2"), "mark", None, D("0.1"), "none", Place("stops.yaml", 3, 12, "")
)
BTC = Position("BTC", "long", D(10), entry_price=D(100), mark_price=D(100))
STOP = Order("s1", "BTC", "sell", D(12), client_order_id=f"kscstop{'0' * 24}", trigger_price=D(80), reduce_only=True)


def account(*positions: Position, orders: tuple[Order, ...] = ()) -> AccountSnapshot:
    rules = tuple(
        Instrument(symbol, contract_size=D(1), amount_step=D(1), price_step=D(1)) for symbol in ("BTC", "ETH")
    )
    return AccountSnapshot("main", "paper", "swap", "USDT", "ok", positions=positions, orders=orders, instruments=rules)


def planned(rule: CatastropheStopRule, found: AccountSnapshot) -> list[str]:
    ((section),) = planned_stops(stops_now((rule,), (found,)), (rule,))
    return [" ".join(line.split()) for line in section_text(section).splitlines()]


def test_status_shows_each_position_with_its_stop_or_the_reason() -> None:
    """Account, symbol, side, contracts, what is covered, the trigger, and why something is not."""
    views = (
        StopView("main", "BTC", "long", D(10), D(10), D(80)),
        StopView("main", "ETH", "short", D(3), D(0), None, "neither the entry nor the mark of ETH is known"),
    )
    ((section),) = catastrophe_stops(views)
    assert [" ".join(line.split()) for line in section_text(section).splitlines()] == [
        "Catastrophe stops",
        "account symbol side contracts covered trigger without a stop because",
        "main BTC long 10 10 80 -",
        "main ETH short 3 0 - neither the entry nor the mark of ETH is known",
    ]
    assert list(catastrophe_stops(())) == []


def test_a_plan_shows_what_would_be_cancelled_and_placed() -> None:
    """The stop of 12 exceeds the position of 10; ETH has none yet."""
    eth = Position("ETH", "short", D(3), entry_price=D(50), mark_price=D(50))
    assert planned(RULE, account(BTC, eth, orders=(STOP,))) == [
        "Catastrophe stops",
        "account position trigger to be done remarks",
        "main long BTC 80 cancel s1; sell 10 at 80 -",
        "main short ETH 60 buy 3 at 60 -",
    ]


def test_a_plan_says_which_leg_a_stop_leaves_naked() -> None:
    """With `pairs: accept`, nobody closes the other leg while no runner lives."""
    rule = replace(RULE, apart=(StopTwin("main", "BTC", "wallet", "BTC/USDT"),))
    assert planned(rule, account(BTC))[2] == "main long BTC 80 sell 10 at 80 then BTC/USDT of wallet is naked"


def test_a_plan_without_a_poll_says_that_it_is_unknown() -> None:
    """No position is taken for flat, and nothing is to be done."""
    down = replace(account(), quality="down", reason="no answer", positions=None)
    assert planned(RULE, down)[2] == "main - - - unknown: no answer"
