"""Paper venues and runners as real processes, and waiting for their visible effects with a deadline."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from killswitch.model.decision import Decision
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.store import JournalEntry
from killswitch.model.venue import AccountSpec
from killswitch.operations.status import StoreStatus, store_status
from killswitch.store.sqlite import open_store
from killswitch.watcher.watch import SwitchView, switch_views
from killswitch_paper import adapter
from tests.e2e.fork_client import Process, begin, finish

KSCTL = (sys.executable, "-c", "from killswitch.cli import main; main()")
WAIT_LIMIT = 90.0
"""Seconds until a wait fails; a deadline for a machine under load, not an expectation."""

T = TypeVar("T")

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: stop}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    loss: {signal: equity.loss_from_start, at_least: 2%, on_unknown: hold}
  stages:
    - name: close-everything
      level: 1
      any: [loss]
      cooldown: 6h
      reset: manual
      actions:
        - lock_trading: {mode: reduce_only}
        - cancel_orders: {kind: entry}
        - close: {side: both, fraction: 100%}
"""


@contextmanager
def process(*arguments: str, fresh: bool = False) -> Iterator[Process]:
    """Run `ksctl` with these arguments; kill it by its id if it still runs at the end. `fresh`: as in `begin`."""
    with begin(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, fresh=fresh) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()


@contextmanager
def paper(*options: str) -> Iterator[str]:
    """The address of a running paper venue."""
    with process("paper", *options) as server:
        yield address_of(server)


def address_of(server: Process) -> str:
    """The address that a started paper venue prints first."""
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:"), address
    return address


@contextmanager
def paused(server: Process) -> Iterator[None]:
    """Pause the process with SIGSTOP; it answers nobody until the end of the block."""
    server.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send_signal(signal.SIGCONT)


def ksctl(*arguments: str, fresh: bool = False) -> subprocess.CompletedProcess[str]:
    """Run one command to its end. `fresh`: as in `begin`."""
    return finish(arguments, timeout=WAIT_LIMIT, fresh=fresh)


def until(condition: Callable[[], T], what: str) -> T:
    """Poll until `condition()` is true, and return its value; fail with `what` at the deadline."""
    deadline = time.monotonic() + WAIT_LIMIT
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"within {WAIT_LIMIT:g} s it was never seen that {what}")


class Site:
    """A store and policies of one account at the paper venue at `address`."""

    def __init__(self, folder: Path, address: str, *, execution: str = "live", policy: str = POLICY) -> None:
        self.folder = folder
        self.address = address
        self.store = folder / "store.sqlite"
        self.locks = folder / "locks"
        self.policies = folder / "policies"
        self.policies.mkdir()
        (self.policies / "policy.yaml").write_text(policy, encoding="utf-8")
        (self.policies / "account.yaml").write_text(
            "apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {name: main}\n"
            f"spec: {{adapter: paper, market: swap, currency: USDT, endpoint: '{address}', execution: {execution}}}\n",
            encoding="utf-8",
        )

    @property
    def place(self) -> tuple[str, ...]:
        """The options that name the policies, the store and the locks."""
        return ("--policies", str(self.policies), "--store", str(self.store), "--lock-dir", str(self.locks))

    @contextmanager
    def running(self, *options: str, fresh: bool = False) -> Iterator[Process]:
        """Start a runner and wait for its first tick. `fresh`: as in `begin`."""
        before = self.has_ticked()
        with process("run", *self.place, "--interval", "100ms", *options, fresh=fresh) as runner:
            until(lambda: runner.poll() is not None or self.has_ticked() != before, "the runner ticks")
            yield runner

    def status(self) -> StoreStatus:
        from datetime import UTC, datetime

        store = open_store(str(self.store), read_only=True)
        try:
            return store_status(store, datetime.now(UTC), 20)
        finally:
            store.close()

    def decisions(self) -> list[Decision]:
        """The stored decisions, newest first."""
        store = open_store(str(self.store), read_only=True)
        try:
            return [stored.decision for stored in store.decisions(50)]
        finally:
            store.close()

    def journal(self) -> list[JournalEntry]:
        store = open_store(str(self.store), read_only=True)
        try:
            return list(store.journal())
        finally:
            store.close()

    def venue(self) -> AccountSnapshot:
        """A snapshot of the account from the venue itself."""

        async def fetch() -> AccountSnapshot:
            venue = adapter(AccountSpec("main", "paper", "swap", "USDT", self.address, {}, {}))
            try:
                return await venue.snapshot()
            finally:
                await venue.close()

        return asyncio.run(fetch())

    def has_ticked(self) -> object:
        if not self.store.exists():
            return None
        from killswitch.store.errors import StoreError

        try:
            view = self.status().view
        except StoreError:
            return None  # the store is being created
        return None if view is None else (view.owner, view.started_at)


def terminate(runner: Process) -> tuple[int, str, str]:
    """Send SIGTERM; the exit code, stdout and stderr."""
    runner.send_signal(signal.SIGTERM)
    out, err = runner.communicate(timeout=WAIT_LIMIT)
    return runner.returncode, out, err


FILLING = ("--crash", "7", "--speed", "600")
"""A market in which orders fill."""
UNTRIGGERED = POLICY.replace("at_least: 2%", "at_least: 99%")
BEATING_BOT = """
import sys, time
from killswitch.client import heartbeat
loops = 0
while True:
    loops += 1
    heartbeat("maker", progress=loops, to=[sys.argv[1]])
    time.sleep(0.1)
"""


class WatchedSite(Site):
    """A site whose account a watcher closes after a second of silence."""

    def __init__(self, folder: Path, address: str, **changed: object) -> None:
        super().__init__(folder, address, policy=UNTRIGGERED)
        self.beats = folder / "beats"
        self.beats.mkdir()
        self.watcher_store = folder / "watcher.sqlite"
        self.declare(**changed)

    def declare(self, **changed: object) -> None:
        """Write the switch, with these keys changed."""
        spec = {
            "accounts": ["main"], "at_venue": False, "watches": "strategy", "beats": "maker",
            "ways": [{"file": str(self.beats)}], "every": "300ms", "timeout": "1s", "check": "200ms", "checks": 2,
            "pending": {"limit": "1h", "then": "page"}, "on_one_way": "page", "on_silence": "close", **changed,
        }  # fmt: skip
        head = {"apiVersion": "killswitch.dev/v1", "kind": "DeadMansSwitch", "metadata": {"name": "maker"}}
        switch = {**head, "spec": spec}
        (self.policies / "switch.yaml").write_text(json.dumps(switch))

    @contextmanager
    def watching(self) -> Iterator[Process]:
        """A live watcher, from its first check on."""
        locks = str(self.folder / "watcher.locks")
        place = ("--policies", str(self.policies), "--store", str(self.watcher_store), "--lock-dir", locks)
        before = self.switch()
        with process("deadman", "watch", *place, "--live", "--unnotified", "--interval", "500ms") as watcher:
            until(lambda: watcher.poll() is not None or self.switch() != before, "the watcher checks")
            assert watcher.poll() is None, watcher.communicate()
            yield watcher

    def switch(self) -> SwitchView | None:
        """The switch as of the watcher's last check."""
        if not self.watcher_store.exists():
            return None
        store = open_store(str(self.watcher_store), read_only=True)
        try:
            return next(iter(switch_views(store)), None)
        finally:
            store.close()

    def phase(self) -> str:
        found = self.switch()
        return "none" if found is None else found.phase

    def contracts(self) -> dict[str, Decimal]:
        """Symbol → contracts at the venue."""
        return {each.symbol: each.contracts for each in self.venue().positions or ()}

    def last_beat(self) -> float:
        """When the bot has sent its last heartbeat, in seconds since the machine was started."""
        return float(json.loads((self.beats / "maker").read_text())["monotonic"])

    def command(self, *arguments: str) -> str:
        """The answer of a `ksctl deadman` command on the watcher's store."""
        done = ksctl("deadman", *arguments, "--store", str(self.watcher_store))
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def beating_bot(where: Path | str) -> Iterator[subprocess.Popen[bytes]]:
    """A bot whose loop beats ten times a second."""
    with subprocess.Popen([sys.executable, "-c", BEATING_BOT, str(where)]) as running:
        try:
            yield running
        finally:
            running.kill()


@contextmanager
def armed_switch(folder: Path, **changed: object) -> Iterator[tuple[WatchedSite, Process, subprocess.Popen[bytes]]]:
    """A site with a position, a watcher that has heard its bot, and the bot."""
    with paper(*FILLING) as address:
        site = WatchedSite(folder, address, **changed)
        with site.watching() as watcher, beating_bot(site.beats) as running:
            until(lambda: site.phase() == "armed", "the switch is armed")
            assert site.venue().positions
            yield site, watcher, running
