"""The gate's view: what the runner writes after each tick, when its reads began, and the day of the limits."""

from __future__ import annotations

import asyncio
import json
import stat
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it ships no type information
from msgspec.structs import replace

from killswitch.graph.limits import DayRule
from killswitch.limits.day import next_day
from killswitch.limits.view import DayState, GateView, ReadTimes, decode_gate_view, gate_view_schema
from killswitch.model.snapshot import AccountSnapshot
from killswitch.runner.locks.gate_view import GateSources, GateViewWriter
from tests.graphs import policy_set
from tests.runner_world import ScriptedVenue, World, book, crash_policy
from tests.unit.limits.gates import limits
from tests.worlds import START, account, after, fill, flow, rules

DAY = DayRule(trades=9, fees=Decimal(5), fee_rate=Decimal("0.001"))
LIMITED = replace(policy_set(crash_policy()), limits=(limits(day=DAY),))


def timed(seen: AccountSnapshot, *, orders: float = 0.0, positions: float = 0.0, fills: float = 0.0) -> AccountSnapshot:
    """The account with reads so many seconds after START by the venue's clock."""
    return replace(
        seen, orders_as_of=after(seconds=orders), positions_as_of=after(seconds=positions),
        wallet_as_of=after(seconds=positions), fills_as_of=after(seconds=fills),
    )  # fmt: skip


def run(world: World, seen: AccountSnapshot, ticks: int = 1) -> GateView:
    """The view after so many ticks of a run that sees this account."""
    path = world.folder / "store.sqlite.gate.json"
    store = world.open()
    writer = GateViewWriter(path, LIMITED, world.locks.folder)
    runner = world.runner(store, [ScriptedVenue(seen)], policies=LIMITED, witnesses=(writer,))
    clock = runner.clock
    writer.connect(
        GateSources(
            runner.poller.dated, runner.observers.own_orders.in_flight, clock.now, clock.monotonic, clock.off,
            {"main": True},
        )
    )  # fmt: skip
    asyncio.run(runner.run(asyncio.Event(), ticks))
    assert writer.close(10.0)
    assert writer.alerts.texts == ()
    return decode_gate_view(path.read_bytes())


def test_the_view_has_what_orders_are_judged_by(world: World) -> None:
    """Positions, rules, limits, and which flags the venue enforces; fills and flows are counted, not repeated."""
    seen = timed(book("1100", fills=[fill("f", START, "BTC", "buy", "1", "110", client_order_id="bot-1")]))
    view = run(world, seen, 2)
    (found,) = view.accounts
    assert [(each.symbol, each.contracts) for each in found.state.positions or ()] == [("BTC", Decimal(10))]
    assert [each.symbol for each in found.state.instruments or ()] == ["BTC"]
    assert found.limits == LIMITED.limits[0]
    assert found.enforced == ("market", "limit", "stop", "take_profit")
    assert (found.state.fills, found.state.flows) == (None, None)
    assert [each.client_order_id for each in found.filled] == ["bot-1"]
    assert found.seen_ids == ("bot-1",)
    assert view.lock_folder == str(world.locks.folder)


def test_the_file_fits_its_schema_and_is_for_its_owner_only(world: World) -> None:
    """The format's JSON Schema, and mode 0600: positions are not for every user of the machine."""
    run(world, timed(book("1100")))
    path = world.folder / "store.sqlite.gate.json"
    Draft202012Validator(gate_view_schema()).validate(json.loads(path.read_bytes()))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("orders", "is_ordered"), [(-3.0, True), (0.0, True), (0.2, False)])
def test_reads_are_dated_from_the_request_of_their_poll(world: World, orders: float, is_ordered: bool) -> None:
    """Orders that the venue dates 3 s before the positions began 3 s before the poll was requested."""
    (found,) = run(world, timed(book("1100"), orders=orders, fills=-1.0)).accounts
    reads = found.reads
    assert reads.positions is not None
    assert reads.orders == reads.positions + timedelta(seconds=orders)
    assert reads.fills == reads.positions - timedelta(seconds=1)
    assert reads.is_ordered is is_ordered


def test_what_is_not_dated_or_not_ok_proves_nothing(world: World) -> None:
    """Without `orders_as_of`, and while the account cannot be read."""
    (found,) = run(world, replace(timed(book("1100")), orders_as_of=None)).accounts
    assert found.reads.orders is None
    assert not found.reads.is_ordered
    (down,) = run(world, replace(timed(book("1100")), quality="down", reason="maintenance")).accounts
    assert down.reads == ReadTimes()


def test_a_view_that_cannot_be_written_is_a_page(world: World, tmp_path: Path) -> None:
    """A folder in the place of the file; the run goes on."""
    (tmp_path / "gate.json").mkdir()
    writer = GateViewWriter(tmp_path / "gate.json", LIMITED, None)
    runner = world.runner(world.open(), [ScriptedVenue(book("1100"))], policies=LIMITED, witnesses=(writer,))
    clock = runner.clock
    sources = GateSources(runner.poller.dated, lambda _: (), clock.now, clock.monotonic, clock.off, {})
    writer.connect(sources)
    asyncio.run(runner.run(asyncio.Event(), 1))
    writer.close(10.0)
    (text,) = writer.alerts.texts
    assert "entries are denied" in text


def test_a_store_that_refuses_writes_is_in_the_view(world: World, tmp_path: Path) -> None:
    """With the reason; the gate denies entries by it."""
    writer = GateViewWriter(tmp_path / "gate.json", LIMITED, None)
    runner = world.runner(world.open(), [ScriptedVenue(book("1100"))], policies=LIMITED, witnesses=(writer,))
    clock, why = runner.clock, ["the disk is full", None]
    writer.connect(
        GateSources(
            runner.poller.dated, lambda _: (), clock.now, clock.monotonic, clock.off, {}, unrecorded=lambda: why[0]
        )
    )
    asyncio.run(runner.run(asyncio.Event(), 1))
    writer.close(10.0)
    assert decode_gate_view((tmp_path / "gate.json").read_bytes()).unrecorded == "the disk is full"


# The day


def day_of(before: DayState | None, seen: AccountSnapshot, at: Any) -> DayState | None:
    known = {("main", "BTC"): rules("BTC")}
    return next_day(before, seen, known, LIMITED.limits[0], at)


def at(seconds: float, equity: str = "1000", **more: Any) -> AccountSnapshot:
    return timed(account(equity, **more), positions=seconds)


def test_the_day_counts_orders_fees_at_their_worst_and_the_loss_without_transfers() -> None:
    """Two fills of one order and one of another are 2 trades; fees 1 and 0.1% of 2 × 100; 1,000 + 500 − 1,450 = 50."""
    begun = day_of(None, at(0), START)
    fills = [
        fill("1", after(seconds=1), "BTC", "buy", "1", "100", order="a", fee="1", fee_currency="USDT"),
        fill("2", after(seconds=1), "BTC", "buy", "1", "100", order="a", fee="0", fee_currency="USDT"),
        fill("3", after(seconds=1), "BTC", "sell", "2", "100", order="b"),
    ]
    found = day_of(
        begun, at(2, "1450", fills=fills, flows=[flow("x", after(seconds=1), "500", "deposit")]), after(seconds=2)
    )
    assert found is not None
    assert (found.trades, found.fees, found.loss) == (2, Decimal("1.2"), Decimal(50))


def test_the_day_turns_when_both_clocks_are_past_midnight() -> None:
    """The run's clock alone refills nothing, nor does the venue's; then the counters begin again."""
    begun = day_of(None, at(0), START)
    traded = day_of(begun, at(60, fills=[fill("1", after(seconds=1), "BTC", "buy", "1", "100")]), after(seconds=60))
    assert traded is not None
    ours = day_of(traded, at(120), after(hours=25))
    venue = day_of(traded, at(90_000), after(seconds=120))
    both = day_of(traded, at(90_000), after(hours=25))
    assert [each and each.trades for each in (ours, venue, both)] == [1, 1, 0]
    assert both is not None
    assert (both.day, both.began_with) == ("2024-01-02", Decimal(1000))


@pytest.mark.parametrize(
    ("more", "unknown"),
    [
        ({"flows": None}, ("loss",)),
        ({"fills": None}, ("trades", "fees")),
        ({"quality": "down"}, ("loss",)),
    ],
)
def test_what_cannot_be_read_is_unknown_until_it_is_read_again(more: dict[str, Any], unknown: tuple[str, ...]) -> None:
    """And known again with the next complete snapshot, which has the rows since."""
    begun = day_of(None, at(0), START)
    seen = replace(at(1, "990"), **more)
    blind = day_of(begun, seen, after(seconds=1))
    assert [name for name in ("loss", "trades", "fees") if getattr(blind, name) is None] == list(unknown)
    clear = day_of(blind, at(2, "990"), after(seconds=2))
    assert clear is not None
    assert (clear.loss, clear.trades) == (Decimal(10), 0)


def test_a_run_of_the_same_day_goes_on_with_the_counters(world: World) -> None:
    """What an earlier run has counted is not counted again, and is not forgotten."""
    rows = [fill("f", START, "BTC", "buy", "1", "110", order="o1", fee="1", fee_currency="USDT")]
    first = run(world, timed(book("1100", fills=rows)))
    again = run(world, timed(book("1100", fills=rows)))
    for view in (first, again):
        (found,) = view.accounts
        assert found.day is not None
        assert (found.day.trades, found.day.fees) == (1, Decimal(1))
