"""Locks by hand: a close locks its scope before its first order, and operators lock and unlock scopes."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from killswitch.cli.operate import command_output
from killswitch.cli.operate.command_delivery import CommandSite
from killswitch.cli.operate.locks import lock
from killswitch.cli.operate.parts import lock_end
from killswitch.gate.lock_reader import LockVerdict, read_lock, read_position_lock
from killswitch.graph.nodes import ScopeRule
from killswitch.model.decision import Decision
from killswitch.model.instant import HOUR, MINUTE, LocalTime, rfc3339
from killswitch.model.snapshot import Event, Side
from killswitch.model.venue import OrderReport, OrderRequest, VenueDownError
from killswitch.operations.commands import (
    CommandAnswer,
    RefusedScopeError,
    answer_to,
    operator_event,
    require_known_or_symbol,
)
from killswitch.operations.pages.wording import command_line, headline
from killswitch.planning.operator.closes import accounts_in
from killswitch.render.formats import instant
from killswitch.signals.sessions import TradingSession
from tests import graphs
from tests.e2e.processes import POLICY
from tests.runner_world import PACE, ScriptedVenue, World, book
from tests.worlds import after, snapshot


class Site:
    """A world whose one venue notes, with each order, what a bot reads in the lock file of the account."""

    def __init__(self, world: World) -> None:
        self.world, self.store = world, world.open()
        self.file = world.folder / "locks" / "account__main.json"
        self.at_orders: list[LockVerdict] = []
        site = self

        class Watched(ScriptedVenue):
            async def submit(self, request: OrderRequest) -> OrderReport:
                site.at_orders.append(site.lock())
                return await super().submit(request)

        self.venue = Watched(book("1000"))

    def lock(self, file: Path | None = None) -> LockVerdict:
        return read_lock(file or self.file, self.world.clock.now())

    def command(self, kind: str, scope: str | None = "account/main", **more: object) -> Event:
        """Store a command of an operator."""
        event = operator_event(kind, scope, "risk-desk", "seen", self.world.clock.now(), **more)  # type: ignore[arg-type] # one of the kinds
        self.store.put_event(event)
        return event

    def ticked(self, *events: dict[str, object], ticks: int = 1) -> list[CommandAnswer]:
        """A run that processes each command at a tick of its own; the answers."""

        async def run() -> list[CommandAnswer]:
            runner = self.world.runner(self.store, [self.venue])
            await runner.start()
            stored = []
            for each in events or ({},) * ticks:
                stored += [self.command(**each)] if each else []  # type: ignore[arg-type] # as `command` takes them
                await self.world.clock.sleep(1.0)
                await runner.tick()
                assert await runner.close_within(60.0)
                await self.world.clock.sleep(1.0)
                await runner.tick()
            answers = [answer_to(self.store, each) for each in stored]
            await runner.finish()
            return answers

        return asyncio.run(run())


SIDES: tuple[Side, ...] = ("long", "short")
ACCOUNT = """
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, market: swap, currency: USDT, endpoint: 'http://127.0.0.1:1', execution: observe}
"""
CLOSE: dict[str, object] = {"kind": "close", "cause": "operator", "lock": "reduce_only"}


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


def only(answer: CommandAnswer) -> Decision:
    (decision,) = answer.decisions
    return decision


def test_a_close_by_hand_locks_its_scope_before_its_first_order(site: Site) -> None:
    """No bot may buy back what is being closed; the lock has no end and outlives the close."""
    (answer,) = site.ticked(CLOSE)
    assert [(each.locked, each.mode) for each in site.at_orders] == [(True, "reduce_only")]
    assert site.lock().reason == "seen"
    lock = only(answer).lock
    assert lock is not None
    assert (lock.scope, lock.mode, lock.until) == ("account/main", "reduce_only", None)


def test_a_close_by_hand_without_a_lock_leaves_trading_open(site: Site) -> None:
    """The operator has declined the lock."""
    site.ticked({"kind": "close", "cause": "operator"})
    assert [each.locked for each in site.at_orders] == [False]
    assert not site.lock().locked


def test_a_close_of_the_portfolio_locks_every_account_file(site: Site) -> None:
    """A bot reads the file of its account only."""
    site.ticked(CLOSE | {"scope": None})
    assert site.at_orders[0].locked
    assert site.lock().locked
    assert site.lock(site.file.with_name("portfolio.json")).locked


@pytest.mark.parametrize("kind", ["reset", "unlock"])
def test_the_lock_of_a_close_by_hand_survives_a_restart_until_it_is_lifted(site: Site, kind: str) -> None:
    """`reset` and `unlock` of its scope both lift it, for good."""
    site.ticked(CLOSE)
    site.ticked(ticks=2)
    assert site.lock().locked
    site.ticked({"kind": kind})
    assert not site.lock().locked
    site.ticked(ticks=2)
    assert not site.lock().locked


def test_a_close_that_waits_for_every_account_locks_them_meanwhile(site: Site) -> None:
    """The accounts cannot be read, and bots may trade on them; the close follows when they can be, across a restart."""
    site.venue.answer = VenueDownError("no route")
    site.ticked(CLOSE)
    assert site.venue.sent == []
    assert site.lock().locked
    site.venue.answer = book("1000")
    site.ticked(ticks=2)
    assert len(site.venue.sent) == 1
    assert site.lock().locked


def test_a_lock_folder_that_is_in_the_way_delays_a_close_by_hand_no_longer_than_that_of_a_stage(world: World) -> None:
    """The file cannot be written at all: the order leaves all the same, and the lock is reported as missing."""
    site = Site(world)
    world.locks.folder.write_text("in the way", encoding="utf-8")

    async def run() -> tuple[str, ...]:
        runner = world.runner(site.store, [site.venue], pace=replace(PACE, lock_timeout=0.1))
        await runner.start()
        site.command(**CLOSE)  # type: ignore[arg-type] # as `command` takes them
        report = await runner.tick()
        assert await runner.close_within(60.0)
        await runner.finish()
        return report.problems

    problems = asyncio.run(run())
    assert len(site.venue.sent) == 1
    assert any("the lock of account/main is not written yet" in each for each in problems)


def test_an_operator_locks_and_unlocks_a_scope(site: Site) -> None:
    """Nothing is closed; lock and unlock are decisions with author and reason."""
    locked, unlocked = site.ticked({"kind": "lock", "lock": "all"}, {"kind": "unlock"})
    assert site.venue.sent == []
    assert not site.lock().locked
    assert [(each.kind, each.author, each.reason) for each in (only(locked), only(unlocked))] == [
        ("manual", "risk-desk", "seen"),
        ("reset", "risk-desk", "seen"),
    ]


def test_a_lock_by_hand_ends_at_its_time(site: Site) -> None:
    """`--for` bounds it; the runner opens the file."""
    until = site.world.clock.now() + timedelta(seconds=30)
    site.ticked({"kind": "lock", "lock": "all", "until": until})
    assert site.lock().mode == "all"
    asyncio.run(site.world.clock.sleep(30.0))
    site.ticked(ticks=1)
    assert not site.lock().locked


def test_a_lock_by_hand_that_is_over_before_a_tick_is_refused(site: Site) -> None:
    """It would be recorded and never written."""
    (answer,) = site.ticked({"kind": "lock", "lock": "all", "until": site.world.clock.now()})
    assert answer.decisions == ()
    assert [each.text[:36] for each in answer.notices] == ["the lock by hand was not written: it"]


def test_an_unlock_leaves_the_lock_of_a_stage_as_the_stage_ordered_it(site: Site) -> None:
    """The lock by hand was stricter: the file is as strict as the lock that is left."""
    site.ticked({"kind": "lock", "lock": "all"})
    site.venue.answer = book("900")
    site.ticked(ticks=2)
    assert (site.lock().mode, len(site.venue.sent)) == ("all", 1)
    site.ticked({"kind": "unlock"})
    assert site.lock().mode == "reduce_only"
    assert json.loads(site.file.read_bytes())["stage"] == "close-everything"
    site.ticked({"kind": "reset"})
    assert not site.lock().locked


def test_a_lock_of_a_symbol_by_hand_is_in_a_file_of_its_own_and_is_unlocked_like_any_other(site: Site) -> None:
    """No account's file is locked, and afterwards the file of the symbol is gone."""
    of_symbol = site.file.with_name("symbol__BTC.json")
    (locked,) = site.ticked({"kind": "lock", "scope": "symbol/BTC", "lock": "all"})
    assert only(locked).lock is not None
    assert (site.lock(of_symbol).mode, site.lock().locked) == ("all", False)
    assert read_position_lock(site.file.parent, "main", "long", "BTC", site.world.clock.now()).mode == "all"
    assert not read_position_lock(site.file.parent, "main", "long", "ETH", site.world.clock.now()).locked
    (unlocked,) = site.ticked({"kind": "unlock", "scope": "symbol/BTC"})
    assert only(unlocked).is_unlock
    assert not of_symbol.exists()
    assert site.venue.sent == []


def test_a_lock_of_a_symbol_that_nobody_holds_is_written_and_said(site: Site) -> None:
    """`BTCUSDT` is not `BTC`: a misspelled name locks nothing that is traded, and the answer names what is held."""
    misspelled, right = site.ticked(
        {"kind": "lock", "lock": "reduce_only", "symbols": ("BTCUSDT",)},
        {"kind": "lock", "lock": "reduce_only", "symbols": ("BTC",)},
    )
    assert [each.lock is not None for each in misspelled.decisions] == [True]
    assert [each.text for each in misspelled.notices] == [
        "no account of account/main holds BTCUSDT or has an order in it: a name that is not as the venue writes it "
        "reaches nothing. Held or ordered: BTC"
    ]
    assert right.notices == ()


@pytest.mark.parametrize(
    ("scope", "is_known"),
    [("symbol/BTC_USDT", True), ("symbol/", False), ("strategy/trend", True), ("strategy/trnd", False)],
)
def test_a_symbol_may_be_locked_before_it_is_held_and_a_strategy_if_a_policy_watches_it(
    scope: str, is_known: bool
) -> None:
    """A misspelled strategy would have a lock file that no bot reads."""
    known = {"account/main", "portfolio", "strategy/trend"}
    if is_known:
        require_known_or_symbol(scope, known)
        return
    with pytest.raises(RefusedScopeError, match="Known: account/main, portfolio, strategy/trend"):
        require_known_or_symbol(scope, known)


def test_a_lock_of_one_side_and_symbol_by_hand_leaves_the_rest_of_the_account_open(site: Site) -> None:
    """A reader of today, which knows no parts, sees the account locked; one that does opens everything else."""
    (locked,) = site.ticked({"kind": "lock", "lock": "all", "side": "long", "symbols": ("BTC", "ETH")})
    assert headline(only(locked)) == "lock by hand by risk-desk: long in BTC and ETH of account/main (seen)"
    assert site.lock().mode == "all"
    written = json.loads(site.file.read_bytes())
    assert (written["locked"], written["only"]) == (
        True, [{"mode": "all", "until": None, "side": "long", "symbols": ["BTC", "ETH"]}]
    )  # fmt: skip
    now = site.world.clock.now()
    found = [(side, symbol, read_position_lock(site.file.parent, "main", side, symbol, now).locked)
             for side in SIDES for symbol in ("BTC", "XRP")]  # fmt: skip
    assert [(side, symbol) for side, symbol, is_locked in found if is_locked] == [("long", "BTC")]
    site.ticked({"kind": "unlock"})
    assert not site.lock().locked


def test_a_pending_lock_is_listed_with_its_part_and_its_end(site: Site) -> None:
    """Somebody who reads the pending commands must not take it for a lock of the whole account."""
    now = site.world.clock.now()
    event = site.command("lock", lock="all", side="short", symbols=("BTC",), until=now + timedelta(hours=2))
    assert command_line(event, now) == (
        "lock short in BTC of account/main by risk-desk, 0s ago: seen, "
        f"until {instant(now + timedelta(hours=2))} [{event.id}]"
    )


@pytest.mark.parametrize(
    ("scope", "names"), [("label/desk=alpha", ["main"]), ("label/desk=beta", []), ("strategy/main", [])]
)
def test_a_lock_by_hand_of_a_label_is_of_the_accounts_that_a_policy_draws_under_it(
    scope: str, names: list[str]
) -> None:
    """A value that no account has names no account, nor does a strategy whose name is that of an account."""
    drawn = ScopeRule("label", None, None, None, None, labels=(("main", "desk=alpha"), ("other", "desk=gamma")))
    policies = graphs.policy_set(replace(graphs.graph([], [], []), scope=drawn))
    assert [each.account for each in accounts_in(scope, snapshot(after(), book("1000")), policies)] == names


NOON = datetime(2026, 12, 24, 12, tzinfo=UTC)  # a Thursday
XNYS = TradingSession(
    name="xnys", zone="America/New_York", opens=(9 * 60 + 30) * MINUTE, closes=16 * HOUR,
    weekdays=("mon", "tue", "wed", "thu", "fri"), holidays=("2026-12-24", "2026-12-25"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("end", "at"),
    [
        (LocalTime(8, 0, "Europe/Berlin"), "2026-12-25T07:00:00Z"),  # noon UTC is 13:00 in Berlin: the next day's
        (LocalTime(14, 0, "Europe/Berlin"), "2026-12-24T13:00:00Z"),
        (XNYS, "2026-12-28T14:30:00Z"),  # two holidays and a weekend: Monday 9:30, five hours behind UTC
    ],
)
def test_a_lock_by_hand_ends_at_a_time_of_the_day_or_an_open(
    end: LocalTime | TradingSession, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one after the command, by the calendar of the zone."""
    monkeypatch.setattr(command_output, "tick_time", lambda *_: NOON)
    command = command_output.given("lock", "account/main", "risk-desk", "seen", lock="all")
    request = command_output.CommandRequest(command, 1.0, json=False, lasts=end)
    event = request.event(None)
    assert event.until is not None
    assert rfc3339(event.until) == at


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--for", "1h", "--until", "08:00 UTC"), "--for and --until exclude each other"),
        (("--until", "25:00 UTC"), "--until:"),
        (("--until", "tomorrow"), "`tomorrow` is neither a time of the day with its zone"),
        (("--side", "both"), "'both' is not one of"),
    ],
)
def test_a_lock_with_a_wrong_end_or_side_is_refused_before_anything_is_sent(
    arguments: tuple[str, ...], error: str, tmp_path: Path
) -> None:
    """The answer names what may be written."""
    (tmp_path / "policy.yaml").write_text(f"{ACCOUNT}---{POLICY}", encoding="utf-8")
    command = ("account/main", "--reason", "seen", "--store", str(tmp_path / "no.sqlite"), "--policies", str(tmp_path))
    result = CliRunner().invoke(lock, [*command, *arguments])
    assert result.exit_code == 2, result.output
    assert error in " ".join(result.output.split())


def test_the_end_of_a_lock_is_found_among_the_sessions_of_the_policies(tmp_path: Path) -> None:
    """A name that no clock time has is that of a Session."""
    session = "apiVersion: killswitch.dev/v1\nkind: Session\nmetadata: {name: xnys}\n"
    spec = "spec: {zone: America/New_York, opens: '09:30', closes: '16:00', weekdays: [mon, tue, wed, thu, fri]}\n"
    (tmp_path / "policy.yaml").write_text(f"{ACCOUNT}---{POLICY}\n---\n{session}{spec}", encoding="utf-8")
    site = CommandSite(str(tmp_path / "no.sqlite"), (tmp_path,), 1.0, None, None)
    found = lock_end("xnys", site)
    assert isinstance(found, TradingSession)
    assert (found.name, found.zone, found.opens) == ("xnys", "America/New_York", (9 * 60 + 30) * MINUTE)
