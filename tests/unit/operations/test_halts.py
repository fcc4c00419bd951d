"""Halts and cancels in a run: the lock is on disk before the first cancel, and the answer says what was done."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from killswitch.cli.operate.command_output import outcome_of
from killswitch.cli.operate.holds import cancel, halt
from killswitch.gate.lock_reader import LockVerdict, read_lock
from killswitch.graph.nodes import PolicySet
from killswitch.incident.incident_builder import incident_of
from killswitch.incident.record.checklist import StartedAs
from killswitch.incident.record.incident_decisions import read_incidents
from killswitch.model.snapshot import Order
from killswitch.operations.commands import CommandAnswer, answer_to, operator_event
from killswitch.operations.lifting import UnnamedError, chosen, holds_of, manual_holds
from killswitch.operations.pages.outcome import hold_lines
from killswitch.operations.preview import encode_preview, from_store, preview
from killswitch.operations.status import store_status
from tests.backtests import written
from tests.fake_venue import deviating
from tests.runner_world import ScriptedVenue, World, book
from tests.shown import plan_text, status_text
from tests.worlds import START, account, snapshot

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
        self.policies: PolicySet | None = None

    def lock(self) -> LockVerdict:
        return read_lock(self.file, self.world.clock.now())

    def ticked(self, *events: dict[str, Any], ticks: int = 1) -> list[CommandAnswer]:
        """A run that processes each command at a tick of its own, and `ticks` more, a second apart."""

        async def run() -> list[CommandAnswer]:
            runner = self.world.runner(self.store, [self.venue], policies=self.policies)
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


def test_what_arrives_after_the_halt_is_cancelled_and_the_record_names_the_lock(site: HaltSite) -> None:
    """A bot had sent it before it could read the lock."""

    async def run() -> None:
        runner = site.world.runner(site.store, [site.venue])
        await runner.start()
        site.store.put_event(operator_event("halt", None, "ann", "seen", site.world.clock.now(), lock="reduce_only"))
        for late in ((), (order("late", "buy", "2"), order("late-exit", "sell", "1")), ()):
            site.venue.rest(*late)
            await site.world.clock.sleep(1.0)
            await runner.tick()
            assert await runner.close_within(60.0)
        await runner.finish()

    site.venue = RestingVenue(site, order("entry", "buy", "1"), order("exit", "sell", "4"))
    asyncio.run(run())
    assert site.venue.cancelled == ["entry", "late"]
    newest, halted = (each.decision for each in site.store.decisions(2))
    assert (newest.kind, newest.command, newest.author) == ("manual", "cancel", "ann")
    assert newest.reason == f"1 order that can add risk arrived under the lock of {halted.id}, and is cancelled"


class Look:
    """What the run finds at the sentinel's path."""

    present: str | None = None


async def _tick(site: HaltSite, runner: Any, times: int = 1) -> None:
    for _ in range(times):
        await site.world.clock.sleep(1.0)
        await runner.tick()
        assert await runner.close_within(60.0)


def test_the_sentinel_halts_everything_until_somebody_ends_that_after_its_removal(site: HaltSite) -> None:
    """Removing it lifts nothing; while it is there nobody lifts anything; a second one halts again."""
    found = Look()

    async def run(script: Any) -> None:
        runner = site.world.runner(site.store, [site.venue])
        runner.sentinel = lambda: found.present
        await runner.start()
        await script(runner)
        await runner.finish()

    def unlock() -> None:
        site.store.put_event(operator_event("unlock", None, "ann", "repaired", site.world.clock.now()))

    async def first(runner: Any) -> None:
        await _tick(site, runner)
        assert not site.lock().locked
        found.present = "halt is there"
        await _tick(site, runner, 3)
        assert site.lock().mode == "reduce_only"
        assert site.venue.cancelled == ["entry"]
        unlock()
        await _tick(site, runner)
        assert site.lock().locked
        (refused,) = [each for each in site.store.notices(5) if each.kind == "nothing_selected"]
        assert refused.text == (
            "the unlock by ann was not carried out: halt is there, and it halts everything. Remove the file first, "
            "then give the command again"
        )
        found.present = None
        await _tick(site, runner, 2)
        assert site.lock().locked

    async def second(runner: Any) -> None:
        await _tick(site, runner, 2)
        assert site.lock().locked
        found.present = None
        unlock()
        await _tick(site, runner, 2)
        assert not site.lock().locked
        found.present = "halt is there"
        await _tick(site, runner, 2)
        assert site.lock().locked

    asyncio.run(run(first))
    found.present = "halt is there"
    asyncio.run(run(second))
    halts = [each.decision for each in site.store.decisions(20) if each.decision.command == "halt"]
    assert [(each.author, each.reason, each.scope) for each in halts] == [
        ("sentinel file", "halt is there", "portfolio")
    ] * 2


@pytest.mark.parametrize("kind", ["lock", "halt", "sentinel"])
def test_what_was_ordered_while_no_runner_lived_is_applied_before_any_file_is_kept_open(
    site: HaltSite, kind: str
) -> None:
    """The file of the earlier run reads as open until it is stale; the new run keeps it open at no moment."""
    site.ticked(ticks=1)
    assert not site.lock().locked
    before = site.file.read_bytes()

    async def run() -> None:
        runner = site.world.runner(site.store, [site.venue])
        if kind == "sentinel":
            runner.sentinel = lambda: "halt is there"
        else:
            site.store.put_event(operator_event(kind, None, "ann", "seen", site.world.clock.now(), lock="reduce_only"))  # type: ignore[arg-type]  # a kind
        await site.world.clock.sleep(12.0)
        await runner.start()
        assert site.file.read_bytes() == before, "an open file is renewed when less than half of its time is left"
        await _tick(site, runner)
        assert site.lock().mode == "reduce_only"
        await runner.finish()

    asyncio.run(run())


def test_without_such_a_command_a_start_keeps_open_files_open(site: HaltSite) -> None:
    """Bots go on while a runner is replaced."""
    site.ticked(ticks=1)
    before = site.file.read_bytes()

    async def run() -> None:
        runner = site.world.runner(site.store, [site.venue])
        await site.world.clock.sleep(12.0)
        await runner.start()
        assert site.file.read_bytes() != before
        await runner.finish()

    asyncio.run(run())
    assert not site.lock().locked


def _ids(site: HaltSite) -> list[str]:
    return [each.decision for each in manual_holds(site.store, site.world.clock.now())]


def test_a_pause_of_a_scope_locks_and_cancels_nothing_until_a_resume_names_it(site: HaltSite) -> None:
    """Across a restart. One that names another decision is refused with those that are there."""
    pause = {"kind": "pause", "lock": "reduce_only"}
    (answer,) = site.ticked(pause)
    (decision,) = answer.decisions
    assert (decision.command, decision.lock and decision.lock.until, site.venue.cancelled) == ("pause", None, [])
    assert site.lock().mode == "reduce_only"
    assert _ids(site) == [decision.id]
    (refused,) = site.ticked({"kind": "resume", "ids": ("0123456789",)})
    assert site.lock().locked
    assert refused.notices[0].text == (
        "the resume was not carried out: no lock by hand on account/main is 0123456789. There now: " + decision.id
    )
    site.ticked({"kind": "resume", "ids": (decision.id,)})
    assert not site.lock().locked
    assert _ids(site) == []


@pytest.mark.parametrize("kind", ["resume", "unlock", "reset"])
def test_what_loosens_ends_what_it_names_and_no_halt_that_came_after(site: HaltSite, kind: str) -> None:
    """In whatever order the two are carried out; the file stays locked by the other."""
    (first,) = site.ticked({"kind": "pause", "lock": "reduce_only"})
    named = (first.decisions[0].id,)
    (_, second) = site.ticked({"kind": kind, "ids": named}, HALT)
    assert site.lock().locked
    assert _ids(site) == [second.decisions[0].id]
    site.ticked(HALT, {"kind": kind, "ids": (second.decisions[0].id,)})
    assert site.lock().locked
    assert len(_ids(site)) == 1


def test_of_several_things_that_hold_a_scope_none_is_ended_without_its_id(site: HaltSite) -> None:
    """With one, it is the one; with none, nothing: a lock of another program has no id."""
    assert chosen("unlock", "account/main", (), ()) == ()
    site.ticked({"kind": "pause", "lock": "reduce_only"})
    holds = holds_of(site.store, None, "account/main", site.world.clock.now())
    assert [each.kind for each in holds] == ["pause"]
    for verb in ("resume", "unlock", "reset"):
        assert chosen(verb, "account/main", (), holds) == (holds[0].decision,)
        assert chosen(verb, "account/main", (holds[0].decision[:8],), holds) == (holds[0].decision,)
    site.ticked(HALT)
    holds = holds_of(site.store, None, "account/main", site.world.clock.now())
    assert chosen("resume", "account/main", (), holds) == (holds[1].decision,)
    with pytest.raises(UnnamedError, match="several things hold it") as refused:
        chosen("unlock", "account/main", (), holds)
    assert all(each.decision in str(refused.value) for each in holds)
    with pytest.raises(UnnamedError, match="names nothing there"):
        chosen("unlock", "account/main", ("ffffffff",), holds)


@pytest.mark.parametrize("verb", [halt, cancel])
def test_a_dry_run_names_what_goes_and_what_stays(verb: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it refuses a symbol next to a scope that is one."""
    refused = CliRunner().invoke(verb, ["symbol/BTC", "--symbol", "ETH", "--reason", "x", "--store", "none.sqlite"])
    assert refused.exit_code == 2
    assert "symbol/BTC is one symbol already" in refused.output


CRASH = """
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, venue: paper, market: swap, currency: USDT, execution: observe}
---
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: crash}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    fall: {signal: equity.drawdown, window: 15m, at_least: 10%, on_unknown: hold}
  stages:
    - name: stop
      level: 1
      any: [fall]
      cooldown: 6h
      reset: manual
      actions: [lock_trading: {mode: reduce_only}]
"""
LIMITED = """
apiVersion: killswitch.dev/v1
kind: Limits
metadata: {name: desk}
spec:
  match: {venue: paper}
  stale_after: 10s
  banned: [DOGE]
  order_size: [{at_most: 2 BTC, symbols: [BTC]}, {at_most: 10%}]
  gross: 50000 USDT
  leverage: 3
  day: {loss: 5%, trades: 40}
  latency: 500ms
"""
AT_MOST = (
    "banned DOGE, order_size 2 BTC (BTC), order_size 10%, gross 50000 USDT, leverage 3, day.loss 5%, day.trades 40, "
    "latency 500ms"
)


def test_a_plan_shows_what_is_held_by_hand_until_it_is_ended(site: HaltSite) -> None:
    """With its id, and its end where it has one; as JSON as well."""
    site.ticked(HALT, {"kind": "pause", "lock": "reduce_only"})
    policies = written(CRASH)
    now = site.world.clock.now()
    holds = manual_holds(site.store, now)
    assert len(holds) == 2
    interpreter, memory = from_store(policies, site.store)
    at = replace(snapshot(START, account("1000")), as_of=now)
    shown = preview(policies, at, interpreter, memory, frozenset(), holds=holds)
    lines = [line.split() for line in plan_text(shown).splitlines() if "by hand" in line]
    assert lines[0][:3] == ["Held", "by", "hand"]
    assert {line[-1] for line in lines[1:]} == {each.decision for each in holds}
    assert [each["decision"] for each in json.loads(encode_preview(shown))["holds"]] == [it.decision for it in holds]
    site.ticked(*({"kind": "unlock", "ids": (each.decision,)} for each in holds))
    assert manual_holds(site.store, site.world.clock.now()) == ()


def test_a_plan_and_the_status_show_the_limits_of_each_account(site: HaltSite) -> None:
    """By the names of their keys, and which account has none, so that no entry passes there."""
    policies = written(CRASH + "---" + LIMITED)
    interpreter, memory = from_store(policies, None)
    books = snapshot(START, account("1000"), account("1000", name="spare"))
    assert policies.limits[0].accounts == ("main",)
    shown = preview(policies, books, interpreter, memory, frozenset())
    assert AT_MOST in plan_text(shown)
    assert "No `Limits` for spare" in plan_text(shown)
    assert json.loads(encode_preview(shown))["limits"][0]["leverage"] == "3"
    site.policies = policies
    site.ticked()
    status = store_status(site.store, site.world.clock.now(), 0)
    assert AT_MOST in status_text(status, "ks.sqlite")
    assert status.view is not None
    assert status.view.limits == policies.limits


def _held_by_hand(site: HaltSite) -> list[str]:
    """What the report of the newest incident says of holds."""
    shown = incident_of(site.store, read_incidents(site.store)[-1], StartedAs("ks.sqlite"))
    return [each.text for each in shown.timeline if each.kind == "hand" and " of " in each.text]


def test_a_report_shows_what_was_held_when_it_began_and_nothing_that_was_over(site: HaltSite) -> None:
    """Nor what was held after its end."""
    lock = {"kind": "lock", "lock": "all"}
    site.ticked(lock, {"kind": "unlock"}, HALT, {"kind": "pause", "scope": "portfolio", "lock": "reduce_only"})
    site.ticked({"kind": "close", "cause": "operator"}, lock, ticks=2)
    assert _held_by_hand(site) == [
        "halt by hand of account/main by ann: seen", "pause by hand of portfolio by ann: seen"
    ]  # fmt: skip


def test_a_report_shows_what_was_held_meanwhile_and_what_ended_it(site: HaltSite) -> None:
    """In the scopes that share an account with the incident."""
    site.policies = written(CRASH)
    site.ticked()
    site.venue.answer = replace(book("800"), orders=site.venue.resting)
    site.ticked()
    assert _held_by_hand(site) == []
    site.ticked(HALT, {"kind": "unlock"}, {"kind": "cancel", "scope": "venue/paper"})
    assert _held_by_hand(site) == [
        "halt by hand of account/main by ann: seen", "unlock by hand of account/main by ann: seen",
        "cancel by hand of venue/paper by ann: seen",
    ]  # fmt: skip
