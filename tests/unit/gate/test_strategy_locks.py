"""Locks of a strategy and of a symbol have files of their own, and lock no other strategy's account file."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from killswitch.accounts.arming import ArmedAccount, Arming
from killswitch.gate.lock_reader import LockVerdict, read_lock, read_position_lock
from killswitch.model.decision import Decision, LockOrder
from killswitch.model.snapshot import LockPart
from killswitch.model.store import TickRecord
from killswitch.operations.commands import operator_event
from killswitch.store.sql import SqlStore
from tests import graphs
from tests.lock_turns import LockFolder, Locking
from tests.runner_world import ScriptedVenue, World

TREND, CARRY = "strategy/trend", "strategy/carry"
OPERATOR = "operator"


class Site:
    """Two armed accounts: `trend` trades in both, `carry` in `a` alone."""

    def __init__(self, world: World) -> None:
        self.store: SqlStore = world.open()
        self.now = world.clock.now()
        self.folder = world.folder / "locks"
        self.union = world.folder / "union.json"
        self.count = 0
        self.arming = Arming(
            {
                name: ArmedAccount(name, venue, "swap", "USDT", ScriptedVenue(None), armed=True)
                for name, venue in (("a", "binance"), ("b", "kraken"))
            },
            graphs.policy_set(),
            {"trend": frozenset({"a", "b"}), "carry": frozenset({"a"}), "elsewhere": frozenset({"c"})},
        )
        self.gate = self.started()

    def started(self) -> Locking:
        """The locks after a runner starts now."""
        folder = LockFolder(self.folder, self.union, generation=1, alive_for=3600.0, wider=self.arming.wider())
        self.gate = Locking(folder, self.store, self.arming)
        self.gate.recover(self.now)
        return self.gate

    def locks(self, scope: str, *, mode: Any = "reduce_only", minutes: float | None = None) -> None:
        """An operator's lock of the scope."""
        self.count += 1
        until = None if minutes is None else self.now + timedelta(minutes=minutes)
        self._commit(lock=LockOrder(scope, mode, until), scope=scope, kind="manual")

    def unlocks(self, scope: str) -> None:
        """An operator's unlock of the scope."""
        self._commit(scope=scope, kind="reset")

    def _commit(self, **fields: Any) -> None:
        self.count += 1
        one = Decision(
            id=f"d{self.count}", as_of=self.now, policy=OPERATOR, policy_set="sha256:test", mode="enforce", stage=None,
            level=0, previous_level=0, **fields,
        )  # fmt: skip
        plans = self.gate.planned(one)
        self.store.commit_tick(TickRecord(self.now, "sha256:test", (), (), (one,), (), plans, None, (), 0))
        assert self.gate.act((one,), self.now) == ()

    def later(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)
        assert self.gate.act((), self.now) == ()

    def path(self, scope: str) -> Path:
        return self.folder / f"{scope.replace('/', '__')}.json"

    def locked(self, *scopes: str) -> list[bool]:
        return [read_lock(self.path(scope), self.now).locked for scope in scopes]

    def asks(self, account: str, symbol: str = "BTC_USDT", strategy: str | None = None) -> LockVerdict:
        """What a bot that opens long learns."""
        return read_position_lock(self.folder, account, "long", symbol, self.now, strategy=strategy)


@pytest.fixture
def site(world: World) -> Iterator[Site]:
    made = Site(world)
    yield made
    made.store.close()


def test_a_lock_of_a_strategy_is_in_its_own_file_and_in_the_union_alone(site: Site) -> None:
    """The accounts and the other strategy trade on; the union is the sum of all."""
    site.locks(TREND, mode="all")
    assert site.locked(TREND, CARRY, "account/a", "account/b") == [True, False, False, False]
    assert read_lock(site.union, site.now).mode == "all"
    site.unlocks(TREND)
    assert site.locked(TREND, CARRY) == [False, False]
    assert not read_lock(site.union, site.now).locked


def test_a_lock_of_a_symbol_is_in_its_own_file_while_it_lasts(site: Site) -> None:
    """No account's file is locked; when the lock is over its file is gone, which locks nothing."""
    assert not site.asks("a").locked
    site.locks("symbol/BTC_USDT", minutes=30)
    assert site.locked("symbol/BTC_USDT", "account/a", TREND) == [True, False, False]
    assert [site.asks("a").locked, site.asks("b").locked, site.asks("a", "ETH_USDT").locked] == [True, True, False]
    site.later(31)
    assert not site.path("symbol/BTC_USDT").exists()
    assert not site.asks("a").locked


def test_the_file_of_a_symbol_goes_although_its_lock_ended_while_no_runner_was_alive(site: Site) -> None:
    """A restart reads which symbols it ever locked, and removes what has ended."""
    site.locks("symbol/BTC_USDT", minutes=30)
    site.now += timedelta(minutes=40)
    site.started()
    assert not site.path("symbol/BTC_USDT").exists()


def test_the_union_is_locked_by_a_symbol_at_that_symbol_for_readers_of_parts(site: Site) -> None:
    """A reader of today sees a lock; a reader of the further field sees the symbol."""
    site.locks("symbol/BTC_USDT")
    union = read_lock(site.union, site.now)
    assert union.locked
    assert [union.may_open("long", "BTC_USDT"), union.may_open("long", "ETH_USDT")] == [False, True]


@pytest.mark.parametrize("wide", ["account/a", "venue/binance", "portfolio"])
def test_a_wider_lock_is_in_the_files_of_the_strategies_that_trade_there(site: Site, wide: str) -> None:
    """A bot that reads its strategy's file alone must not trade in a locked account."""
    site.locks(wide)
    assert site.locked(TREND, CARRY) == [True, True]
    site.unlocks(wide)
    assert site.locked(TREND, CARRY) == [False, False]


def test_a_strategy_of_two_accounts_may_trade_in_the_one_that_is_not_locked(site: Site) -> None:
    """Its file is locked, and the reader that knows the account counts only the strategy's own lock of it."""
    site.locks("account/b")
    assert site.locked(TREND, CARRY) == [True, False]
    assert not site.asks("a", strategy="trend").locked
    assert site.asks("b", strategy="trend").locked
    site.locks(TREND)
    assert site.asks("a", strategy="trend").locked
    assert not site.asks("a", strategy="carry").locked


def test_the_files_of_strategies_are_open_from_the_start_and_a_missing_one_is_a_lock(site: Site) -> None:
    """A bot with a misspelled name must not trade unnoticed."""
    assert site.locked(TREND, CARRY, "strategy/trnd", "strategy/elsewhere") == [False, False, True, True]
    assert site.asks("a", strategy="trnd").locked


def test_a_dead_runner_locks_every_strategy(site: Site) -> None:
    """Stale files read as locked, also where only a wider lock is written in them."""
    site.locks("account/b", minutes=30)
    site.now += timedelta(hours=2)
    assert site.locked(TREND, CARRY) == [True, True]
    assert site.asks("a", strategy="trend").locked


def test_a_lock_of_a_strategy_or_a_symbol_suspends_no_broker(site: Site) -> None:
    """Other strategies of the account must still be able to send orders."""
    site.locks(TREND, mode="all")
    site.locks("symbol/BTC_USDT", mode="all")
    assert site.gate.fully_locked(site.now) == frozenset()
    site.locks("account/a", mode="all")
    assert site.gate.fully_locked(site.now) == {"a"}


def test_positions_of_other_strategies_are_no_breach(site: Site) -> None:
    """The lock of a symbol is compared with that symbol's positions, that of a strategy with its parts."""
    site.locks(TREND)
    site.locks("symbol/BTC_USDT")
    of_strategy, of_symbol = site.gate.written(site.now)
    assert of_strategy.accounts == ("a", "b")
    assert of_symbol.accounts == ("a", "b")
    assert of_symbol.only == (LockPart("reduce_only", None, None, ("BTC_USDT",)),)
    assert [of_symbol.reaches("long", "BTC_USDT"), of_symbol.reaches("long", "ETH_USDT")] == [True, False]


def test_a_reset_by_hand_lifts_a_strategys_lock_whoever_wrote_it(site: Site) -> None:
    """As of any other scope."""
    site.locks(TREND)
    site.gate.act((), site.now, [operator_event("reset", TREND, "operator-1", "seen", datetime.now(site.now.tzinfo))])
    assert site.locked(TREND) == [False]
