"""Halts and cancels in a run: the lock is on disk before the first cancel, and the answer says what was done."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from killswitch.cli.operate.command_output import outcome_of
from killswitch.cli.operate.holds import cancel, halt
from killswitch.gate.lock_reader import LockVerdict, read_lock
from killswitch.model.snapshot import Order
from killswitch.operations.commands import CommandAnswer, answer_to, operator_event
from killswitch.operations.pages.outcome import hold_lines
from tests.fake_venue import deviating
from tests.runner_world import ScriptedVenue, World, book

BTC = "BTC"


def order(name: str, side: str, amount: str, **more: Any) -> Order:
    return Order(id=name, symbol=BTC, side=side, amount=Decimal(amount), **more)  # type: ignore[arg-type]  # literal


RESTING = (order("entry", "buy", "1"), order("exit", "sell", "4"), order("stop", "sell", "6", type="stop_market",
                                                                        trigger_price=Decimal(50)))  # fmt: skip


class RestingVenue(ScriptedVenue):
    """A venue with resting orders, that cancels them; it notes what a bot reads in the lock file at each cancel."""

    def __init__(self, site: HaltSite, *resting: Order) -> None:
        super().__init__(replace(book("1000"), orders=resting))
        self.site = site
        self.cancelled: list[str] = []
        self.at_cancels: list[LockVerdict] = []

    @property
    def resting(self) -> tuple[Order, ...]:
        assert not isinstance(self.answer, BaseException)
        assert self.answer is not None
        return self.answer.orders or ()

    def rest(self, *orders: Order) -> None:
        """Let orders arrive."""
        assert not isinstance(self.answer, BaseException)
        assert self.answer is not None
        self.answer = replace(self.answer, orders=(*self.resting, *orders))

    @deviating
    async def open_orders(self) -> tuple[Order, ...]:
        return self.resting

    @deviating
    async def cancel(self, symbol: str, order_id: str) -> None:
        self.at_cancels.append(self.site.lock())
        self.cancelled.append(order_id)
        assert not isinstance(self.answer, BaseException)
        assert self.answer is not None
        self.answer = replace(self.answer, orders=tuple(each for each in self.resting if each.id != order_id))


class HaltSite:
    """A world with one venue, at which orders rest next to 10 BTC long."""

    def __init__(self, world: World) -> None:
        self.world, self.store = world, world.open()
        self.file = world.folder / "locks" / "account__main.json"
        self.venue = RestingVenue(self, *RESTING)

    def lock(self) -> LockVerdict:
        return read_lock(self.file, self.world.clock.now())

    def ticked(self, *events: dict[str, Any], ticks: int = 1) -> list[CommandAnswer]:
        """A run that processes each command at a tick of its own, and `ticks` more, a second apart."""

        async def run() -> list[CommandAnswer]:
            runner = self.world.runner(self.store, [self.venue])
            await runner.start()
            stored = []
            for each in (*events, *({},) * ticks):
                if each:
                    more = {"scope": "account/main", **each}
                    event = operator_event(
                        more.pop("kind"), more.pop("scope"), "ann", "seen", self.world.clock.now(), **more
                    )
                    self.store.put_event(event)
                    stored.append(event)
                await self.world.clock.sleep(1.0)
                await runner.tick()
                assert await runner.close_within(60.0)
            answers = [answer_to(self.store, each) for each in stored]
            await runner.finish()
            return answers

        return asyncio.run(run())


HALT = {"kind": "halt", "lock": "reduce_only"}


@pytest.fixture
def site(world: World) -> HaltSite:
    return HaltSite(world)


def test_a_halt_locks_before_it_cancels_and_leaves_stops_exits_and_positions(site: HaltSite) -> None:
    """What a bot would send between the two is stopped by the lock."""
    (answer,) = site.ticked(HALT)
    assert site.venue.cancelled == ["entry"]
    assert [(each.locked, each.mode) for each in site.venue.at_cancels] == [(True, "reduce_only")]
    assert {each.id for each in site.venue.resting} == {"exit", "stop"}
    assert site.venue.sent == []
    assert site.lock().mode == "reduce_only"
    outcome = outcome_of(answer, site.store)
    assert not outcome.is_failed
    assert hold_lines(*outcome.results[0]) == ["1 of 1 resting order cancelled; no position is closed"]


def test_a_cancel_locks_nothing(site: HaltSite) -> None:
    """A bot may send the same again."""
    (answer,) = site.ticked({"kind": "cancel"})
    assert site.venue.cancelled == ["entry"]
    assert not site.lock().locked
    assert not outcome_of(answer, site.store).is_failed


def test_a_halt_with_nothing_to_cancel_is_no_failure(site: HaltSite) -> None:
    """The lock is what it did."""
    site.venue = RestingVenue(site, *RESTING[1:])
    (answer,) = site.ticked(HALT)
    outcome = outcome_of(answer, site.store)
    assert not outcome.is_failed
    assert hold_lines(*outcome.results[0]) == ["0 of 0 resting orders cancelled; no position is closed"]


def test_a_halt_is_no_incident_and_outlives_a_restart(site: HaltSite) -> None:
    """It lasts until it is lifted."""
    site.ticked(HALT)
    site.ticked(ticks=2)
    assert site.lock().mode == "reduce_only"
    site.ticked({"kind": "unlock"})
    assert not site.lock().locked


@pytest.mark.parametrize("verb", [halt, cancel])
def test_a_dry_run_names_what_goes_and_what_stays(verb: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it refuses a symbol next to a scope that is one."""
    refused = CliRunner().invoke(verb, ["symbol/BTC", "--symbol", "ETH", "--reason", "x", "--store", "none.sqlite"])
    assert refused.exit_code == 2
    assert "symbol/BTC is one symbol already" in refused.output
