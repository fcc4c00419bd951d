"""A bot reads one file: a lock of a portfolio or venue is in the file of each of its accounts, and ends with it.

The files are read by the reader that README.md prints.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from killswitch.accounts.arming import ArmedAccount, Arming
from killswitch.graph.nodes import Graph, ScopeRule
from killswitch.model.decision import Decision, LockMode, LockOrder
from killswitch.model.snapshot import Event
from killswitch.model.store import TickRecord
from killswitch.operations.commands import locked_scopes, operator_event
from killswitch.operations.status import LockView, locks_at
from killswitch.store.sql import SqlStore
from tests import graphs
from tests.lock_turns import LockFolder, Locking
from tests.runner_world import ScriptedVenue, World

Reader = Callable[[Path], str | None]


def watching(name: str, markets: tuple[str, ...] | None = None) -> Graph:
    """A policy over the portfolio of the accounts in these markets."""
    return graphs.graph([], [], [], policy=name, scope=ScopeRule("portfolio", None, None, markets, None))


class Site:
    """A store, a lock folder, three armed accounts, and policies that watch all of them or the futures alone.

    `a` and `b` are futures at Binance, `c` is a spot account at Kraken.
    """

    def __init__(self, world: World, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store: SqlStore = world.open()
        self.now = world.clock.now()
        self.folder = world.folder / "locks"
        self._reader = reader
        monkeypatch.setattr(time, "time", lambda: self.now.timestamp())  # noqa: PLW0108 # `now` moves
        self.remarks: tuple[str, ...] = ()
        """What every turn says of files that nobody keeps alive."""
        self.gate = self.started()

    def started(self, store: SqlStore | None = None, *, armed: str = "abc", documented: str = "abc") -> Locking:
        """The content of the folder after a runner starts now. `armed`, `documented`: the accounts that are."""
        accounts = {
            name: ArmedAccount(name, venue, market, "USDT", ScriptedVenue(None), armed=name in armed)  # type: ignore[arg-type] # literals
            for name, venue, market in (("a", "binance", "swap"), ("b", "binance", "swap"), ("c", "kraken", "spot"))
            if name in documented
        }
        policies = graphs.policy_set(
            watching("everything"), watching("futures", ("swap",)), watching("spot", ("spot",))
        )
        arming = Arming(accounts, policies)
        folder = LockFolder(self.folder, None, generation=1, alive_for=3600.0, wider=arming.wider())
        self.gate = Locking(folder, store or self.store, arming)
        self.remarks = self.gate.recover(self.now)
        return self.gate

    def locks(
        self, scope: str, mode: LockMode = "all", *, policy: str = "everything", seconds: float | None = None,
        suspicion: bool = False,
    ) -> Decision:  # fmt: skip
        """A decision that locks, committed and carried out."""
        until = None if seconds is None else self.now + timedelta(seconds=seconds)
        return self._commit(Decision(
            id=f"{policy}-{scope}-{self.now.timestamp():.0f}", as_of=self.now, policy=policy, policy_set="sha256:test",
            scope=scope, mode="enforce", stage="stop", level=1, previous_level=0, lock=LockOrder(scope, mode, until),
            kind="suspicion" if suspicion else None,
        ))  # fmt: skip

    def resets(self, scope: str, policy: str = "everything") -> Decision:
        return self._commit(Decision(
            id=f"reset-{self.now.timestamp():.0f}", as_of=self.now, policy=policy, policy_set="sha256:test",
            scope=scope, mode="enforce", stage="stop", level=0, previous_level=1, kind="reset",
        ))  # fmt: skip

    def _commit(self, one: Decision) -> Decision:
        self.store.commit_tick(
            TickRecord(self.now, "sha256:test", (), (), (one,), (), self.gate.planned(one), None, (), 0)
        )
        assert self._acted((one,)) == self.remarks
        return one

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        assert self._acted(()) == self.remarks

    def reset_by_hand(self, scope: str) -> None:
        assert self._acted((), (operator_event("reset", scope, "operator-1", "looked at it", self.now),)) == ()

    def _acted(self, decisions: tuple[Decision, ...], commands: tuple[Event, ...] = ()) -> tuple[str, ...]:
        """The problems, except for locks that replace an unreadable file."""
        found = self.gate.act(decisions, self.now, commands)
        return tuple(each for each in found if "until `ksctl reset" not in each)

    def path(self, scope: str) -> Path:
        return self.folder / f"{scope.replace('/', '__')}.json"

    def reads(self, *scopes: str) -> list[str | None]:
        """What bots read, by the printed reader."""
        return [self._reader(self.path(scope)) for scope in scopes or ("account/a", "account/b", "account/c")]

    def view(self, scope: str) -> LockView:
        (found,) = [each for each in locks_at(self.folder, None, self.now) if each.scope == scope]
        return found


@pytest.fixture
def site(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    (code,) = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)
    names: dict[str, Reader] = {}
    exec(code, names)
    world = World(tmp_path)
    yield Site(world, names["trading_lock"], monkeypatch)
    world.close()


def test_a_portfolio_lock_is_in_the_file_of_every_account(site: Site) -> None:
    """Open before; `all` for every bot from the moment on that the portfolio is locked."""
    assert site.reads() == [None, None, None]
    site.locks("portfolio")
    assert site.reads() == ["all", "all", "all"]
    content = json.loads(site.path("account/a").read_text())
    assert (content["scope"], content["details"]["scopes"]) == ("account/a", "portfolio")
    assert content["expires_ts"] == 253402300799  # the reader of version 6 is locked as well


def test_a_venue_lock_is_in_the_files_of_its_accounts_alone(site: Site) -> None:
    """The account at the other venue trades on; also where the policy that locked covers another scope by now."""
    site.locks("venue/binance", "reduce_only")
    assert site.reads() == ["reduce_only", "reduce_only", None]


def test_a_portfolio_lock_is_in_the_file_of_a_venue(site: Site) -> None:
    """A venue has one if it has been locked before."""
    site.locks("venue/binance", "reduce_only", seconds=5)
    site.later(5)
    assert site.reads("venue/binance") == [None]
    site.locks("portfolio")
    assert site.reads("venue/binance") == ["all"]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("ends", ["by itself", "by a reset", "by hand"])
def test_the_accounts_open_with_the_portfolio(site: Site, ends: str, restart: bool) -> None:
    """However the wider lock ends, also after a restart."""
    site.locks("portfolio", seconds=60 if ends == "by itself" else None)
    if restart:
        site.started()
    site.later(59)
    assert site.reads() == ["all", "all", "all"]
    if ends == "by a reset":
        site.resets("portfolio")
    elif ends == "by hand":
        site.reset_by_hand("portfolio")
    else:
        site.later(1)
    assert site.reads() == [None, None, None]
    assert "own" not in json.loads(site.path("account/a").read_text())


@pytest.mark.parametrize("first", ["account", "portfolio"])
@pytest.mark.parametrize("restart", [False, True])
def test_an_account_lock_outlives_the_portfolio_lock(site: Site, first: str, restart: bool) -> None:
    """`all` for 60 s by the portfolio, `reduce_only` for 120 s by its own stage: each for its ordered duration."""
    orders = [("account/a", "reduce_only", 120.0), ("portfolio", "all", 60.0)]
    for scope, mode, seconds in orders if first == "account" else reversed(orders):
        site.locks(scope, mode, seconds=seconds)  # type: ignore[arg-type] # a literal
    if restart:
        site.started()
    site.later(59)
    assert site.reads() == ["all", "all", "all"]
    site.later(1)
    assert site.reads() == ["reduce_only", None, None]
    site.later(60)
    assert site.reads() == [None, None, None]


def test_a_reset_of_an_account_leaves_the_portfolio_lock(site: Site) -> None:
    """Its own lock is lifted, the file names what still locks it, and no manual reset is offered for that there."""
    site.locks("account/a", "reduce_only")
    site.locks("portfolio")
    assert site.view("account/a").has_own
    site.reset_by_hand("account/a")
    view = site.view("account/a")
    assert (view.mode, view.has_own, view.wider) == ("all", False, ("portfolio",))
    assert locked_scopes(locks_at(site.folder, None, site.now)) == {"portfolio"}
    site.reset_by_hand("portfolio")
    assert site.reads() == [None, None, None]


def test_an_account_outside_the_policy_trades_on(site: Site) -> None:
    """The portfolio of this policy is the futures; the spot account is in another one's, and is locked with that."""
    site.locks("portfolio", policy="futures", seconds=60)
    assert site.reads() == ["all", "all", None]
    site.later(1)
    site.locks("portfolio", "reduce_only", policy="everything", seconds=120)
    # One file for the portfolio, as strict as the strictest in it; each account states which locks reach it.
    assert site.reads("portfolio", "account/a", "account/c") == ["all", "all", "reduce_only"]


def test_an_account_in_two_portfolios_is_locked_by_each(site: Site) -> None:
    """The reset of one policy leaves the account locked for the other."""
    site.locks("portfolio", policy="futures")
    site.later(1)
    site.locks("portfolio", policy="everything")
    site.resets("portfolio", "everything")
    site.later(1)
    assert site.reads("account/a", "account/b") == ["all", "all"]
    site.resets("portfolio", "futures")
    assert site.reads() == [None, None, None]


def test_a_portfolio_suspicion_locks_its_accounts_and_ends_with_it(site: Site) -> None:
    """Their files state it too, and it never lengthens a lock that an account has of its own."""
    site.locks("account/a", seconds=30)
    site.locks("portfolio", "reduce_only", seconds=20, suspicion=True)
    assert site.reads() == ["all", "reduce_only", "reduce_only"]
    assert (site.view("account/a").on_suspicion, site.view("account/b").on_suspicion) == (False, True)
    site.later(20)
    assert site.reads() == ["all", None, None]
    site.later(10)
    assert site.reads() == [None, None, None]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("first", ["lock", "suspicion"])
def test_a_suspicion_remains_where_the_lock_of_another_policy_does_not_reach(
    site: Site, first: str, restart: bool
) -> None:
    """Two policies call different accounts the portfolio: the futures are locked, the spot account is suspected."""
    for order in ("lock", "suspicion") if first == "lock" else ("suspicion", "lock"):
        if order == "lock":
            site.locks("portfolio", policy="futures", seconds=60)
        else:
            site.locks("portfolio", "reduce_only", policy="spot", seconds=20, suspicion=True)
        site.later(1)
    assert site.reads() == ["all", "all", "reduce_only"]
    if restart:
        site.started()
    site.later(17)
    assert site.reads() == ["all", "all", "reduce_only"]
    assert site.view("account/c").on_suspicion
    site.later(2)
    assert site.reads() == ["all", "all", None]
    site.later(40)
    assert site.reads() == [None, None, None]


def test_a_suspicion_yields_only_for_the_accounts_that_a_lock_reaches(site: Site) -> None:
    """A lock of 5 s opens at its end for its accounts; the others are locked for the whole 20 s."""
    site.locks("portfolio", "reduce_only", policy="everything", seconds=20, suspicion=True)
    site.locks("portfolio", policy="futures", seconds=5)
    assert site.reads() == ["all", "all", "reduce_only"]
    site.later(5)
    assert site.reads() == [None, None, "reduce_only"]
    site.later(15)
    assert site.reads() == [None, None, None]


def test_a_reset_of_the_lock_leaves_the_suspicion_of_other_accounts(site: Site) -> None:
    """One file for both: the reset of the one must not replace the other."""
    site.locks("portfolio", "reduce_only", policy="spot", seconds=20, suspicion=True)
    site.locks("portfolio", policy="futures")
    site.later(1)
    site.resets("portfolio", "futures")
    assert site.reads() == [None, None, "reduce_only"]
    site.later(19)
    assert site.reads() == [None, None, None]


def test_an_account_has_the_strictest_mode_and_latest_end_of_the_locks_that_reach_it(site: Site) -> None:
    """`all` for the futures for 60 s, `reduce_only` for everything for 120 s, each for its ordered duration."""
    site.locks("portfolio", policy="futures", seconds=60)
    site.locks("portfolio", "reduce_only", policy="everything", seconds=120)
    site.later(59)
    assert site.reads() == ["all", "all", "reduce_only"]
    site.later(1)
    assert site.reads() == ["reduce_only"] * 3
    site.later(60)
    assert site.reads() == [None, None, None]


@pytest.mark.parametrize("restart", [False, True])
def test_a_policys_lock_opens_nothing_that_a_lock_of_unknown_reach_holds(site: Site, restart: bool) -> None:
    """The portfolio's file cannot be read, which locks all; then the futures are locked: the spot account stays so."""
    site.path("portfolio").write_bytes(b"garbage")
    site.later(1)
    assert site.reads() == ["reduce_only"] * 3
    site.locks("portfolio", policy="futures")
    if restart:
        site.started()
    site.later(1)
    assert [mode is not None for mode in site.reads()] == [True] * 3
    site.reset_by_hand("portfolio")
    assert site.reads() == [None, None, None]


@pytest.mark.parametrize("missing", ["not armed", "in no document"])
def test_the_file_of_an_account_that_no_policy_would_lock_goes_stale(site: Site, missing: str) -> None:
    """A bot must not trade on a file that no lock of its venue or portfolio would close; every write reports it."""
    assert site.reads("account/c") == [None]
    site.started(armed="ab", documented="abc" if missing == "not armed" else "ab")
    (remark,) = site.remarks
    assert "account__c.json" in remark
    site.later(3601)
    site.later(1)
    assert site.reads() == [None, None, "reduce_only"]
    site.locks("venue/kraken", seconds=60)
    site.locks("portfolio", seconds=60)
    assert site.reads("account/c") == ["all" if missing == "not armed" else "reduce_only"]
    site.later(60)
    assert site.reads() == [None, None, "reduce_only"], "opened for a bot whose account nobody would lock"
    for scope in ("account/c", "venue/kraken"):
        site.path(scope).unlink()
    assert site.gate.act((), site.now) == ()


def test_an_account_suspicion_ends_under_the_portfolio_lock(site: Site) -> None:
    """The interim content of the account's own file does not return after the wider lock."""
    site.locks("account/a", seconds=20, suspicion=True)
    site.locks("portfolio", seconds=60)
    site.later(60)
    assert site.reads() == [None, None, None]


@pytest.mark.parametrize("replacement", ["nothing", "open", "garbage", "pipe", "link"])
def test_a_foreign_change_of_an_accounts_file_is_locked_again_at_the_next_tick(site: Site, replacement: str) -> None:
    """Deleted, weakened, or replaced by another kind of file."""
    open_ = site.path("account/a").read_bytes()
    site.locks("portfolio")
    path = site.path("account/a")
    path.unlink()
    if replacement == "open":
        path.write_bytes(open_)
    elif replacement == "garbage":
        path.write_bytes(b'{"locked": fal')
    elif replacement == "pipe":
        os.mkfifo(path)
    elif replacement == "link":
        (site.folder.parent / "mine.json").write_bytes(open_)
        path.symlink_to(site.folder.parent / "mine.json")
    site.later(1)
    assert site.reads() == ["all", "all", "all"]
    assert path.is_file()
    assert not path.is_symlink()


@pytest.mark.parametrize("lost", ["store", "file"])
def test_a_portfolio_file_of_unknown_origin_locks_its_accounts(site: Site, lost: str, tmp_path: Path) -> None:
    """The file is in the folder, from a store that is gone, or cannot be read any more: an operator lifts it."""
    site.locks("portfolio")
    if lost == "store":
        (tmp_path / "new").mkdir()
        world = World(tmp_path / "new")
        site.started(world.open())
    else:
        site.reset_by_hand("portfolio")
        site.path("portfolio").write_bytes(b"garbage")
    site.later(1)
    assert site.reads() == [("all" if lost == "store" else "reduce_only")] * 3
    site.reset_by_hand("portfolio")
    assert site.reads() == [None, None, None]
    if lost == "store":
        world.close()


def test_a_file_with_a_wider_lock_goes_stale_like_any_file(site: Site) -> None:
    """After a runner's death the lock stays; a living runner keeps it alive, half-way through its life."""
    site.locks("portfolio", "reduce_only")
    before = json.loads(site.path("account/a").read_text())["alive_until"]
    site.later(1799)
    assert json.loads(site.path("account/a").read_text())["alive_until"] == before
    site.later(2)
    assert json.loads(site.path("account/a").read_text())["alive_until"] == before + 1801
    site.now += timedelta(days=400)
    assert site.reads() == ["reduce_only"] * 3


def test_a_write_changes_only_the_files_that_differ(site: Site) -> None:
    """A lock in force is not written at every tick: bots read these files before each order."""
    site.locks("portfolio")
    before = {path: path.stat().st_ino for path in site.folder.glob("*.json")}
    site.later(1)
    assert {path: path.stat().st_ino for path in site.folder.glob("*.json")} == before
