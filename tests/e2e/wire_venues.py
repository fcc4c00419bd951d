"""Wire-level venues as processes, and the account documents with which `ksctl` reaches them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from msgspec import Struct

from killswitch.model.decision import Notice
from killswitch.operations.status import StoreStatus, store_status
from killswitch.runner.status_blob import RunnerView
from killswitch.store.errors import StoreError
from killswitch.store.sqlite import open_store
from tests.e2e.fork_client import REPOSITORY, Process, begin, finish
from tests.e2e.processes import WAIT_LIMIT
from tests.wire.server import KEY, PASSPHRASE, SECRET


class VenueAccess(Struct, frozen=True):
    """The account document and environment for one venue. `secrets`: credential → its value in the environment."""

    wire: str
    adapter: str
    exchange: str | None
    currency: str
    symbols: tuple[str, str]
    secrets: Mapping[str, str]
    market: str = "swap"
    book: tuple[str, str] = ("2", "-3")

    def variable(self, credential: str) -> str:
        """The environment variable that holds the credential."""
        return f"KS_TEST_{credential.upper()}"

    def environment(self) -> dict[str, str]:
        """The environment in which the credentials' references resolve."""
        return {**os.environ, **{self.variable(name): value for name, value in self.secrets.items()}}

    def account(self, endpoint: str, endpoint_ws: str, **more: str) -> str:
        """The Account document."""
        keys = ", ".join(f"{name}: 'env:{self.variable(name)}'" for name in self.secrets)
        spec = {
            "adapter": self.adapter, "market": self.market, "currency": self.currency, "endpoint": f"'{endpoint}'",
            "endpoint_ws": f"'{endpoint_ws}'", "execution": "live", "credentials": f"{{{keys}}}", **more,
        }  # fmt: skip
        if self.exchange is not None:
            spec["exchange"] = self.exchange
        written = "\n".join(f"  {name}: {value}" for name, value in spec.items())
        return f"apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {{name: main}}\nspec:\n{written}\n"


KEYS: Final = {"key": KEY, "secret": SECRET}
WITH_PHRASE: Final = {**KEYS, "passphrase": PASSPHRASE}
WIRE: Final = "import sys; from tests.wire.__main__ import main; sys.exit(main(sys.argv[1:]))"
USDT: Final = ("BTC/USDT:USDT", "ETH/USDT:USDT")
EXIT_LIMIT: Final = 10.0
"""Seconds after SIGTERM until a venue is killed."""

VENUES: Final[Mapping[str, VenueAccess]] = {
    "binance": VenueAccess("binance", "ccxt", "binanceusdm", "USDT", USDT, KEYS),
    "bybit": VenueAccess("bybit", "ccxt", "bybit", "USDT", USDT, KEYS),
    "bitget": VenueAccess("bitget", "ccxt", "bitget", "USDT", USDT, WITH_PHRASE),
    "okx": VenueAccess("okx", "ccxt", "okx", "USDT", USDT, WITH_PHRASE),
    "krakenfutures": VenueAccess(
        "krakenfutures", "ccxt", "krakenfutures", "USD", ("BTC/USD:USD", "ETH/USD:USD"),
        {"key": KEY, "secret": "U0VDUkVULVBMQU5URUQ="},
    ),
    "mexc": VenueAccess("mexc", "ccxt", "mexc", "USDT", USDT, KEYS),
    "alpaca": VenueAccess("alpaca", "alpaca", None, "USD", ("AAPL", "MSFT"), KEYS, market="equity", book=("20", "30")),
}  # fmt: skip


class World(Struct, frozen=True):
    """A running venue: its addresses, and the control that changes its state."""

    access: VenueAccess
    address: str
    address_ws: str
    control: str

    def move(self, what: str, **query: str) -> None:
        """Change the venue's state: `price`, `equity`, `trade`, `order`, `hang_up`."""
        parameters = "&".join(f"{name}={quote(value)}" for name, value in query.items())
        request = urllib.request.Request(f"{self.control}/{what}?{parameters}", method="POST")
        with urllib.request.urlopen(request, timeout=10):
            pass

    def state(self) -> dict[str, Any]:
        """The venue's true state."""
        with urllib.request.urlopen(f"{self.control}/state", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def held(self) -> dict[str, str]:
        """Open positions: position → contracts."""
        return {key: amount for key, amount in self.state()["held"].items() if float(amount)}

    def ksctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command to its end, with the credentials in its environment."""
        return finish(arguments, timeout=WAIT_LIMIT, env=self.access.environment())


@contextmanager
def venue(access: VenueAccess, *options: str) -> Iterator[World]:
    """Run the venue with a long and a short position and a resting entry order."""
    book = [f"--position={symbol}={amount}" for symbol, amount in zip(access.symbols, access.book, strict=True)]
    with wire(access.wire, *book, "--orders=1", *options) as addresses:
        yield World(access, **addresses)


@contextmanager
def wire(name: str, *options: str) -> Iterator[dict[str, str]]:
    """Run a wire-level venue in its own process; its addresses."""
    with begin((name, *options), code=WIRE, stdout=subprocess.PIPE, cwd=REPOSITORY) as server:
        try:
            assert server.stdout is not None
            addresses: dict[str, str] = json.loads(server.stdout.readline())
            yield addresses
        finally:
            server.terminate()
            try:
                server.wait(EXIT_LIMIT)
            except subprocess.TimeoutExpired:
                server.kill()


class Run:
    """A runner as a process."""

    def __init__(self, process: Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def stderr(self) -> str:
        """What the runner has written to stderr so far."""
        return self._log.read_text(encoding="utf-8")

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended by itself."""
        return self.process.poll() is not None

    def terminate(self) -> int:
        """Send SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_LIMIT)

    def kill(self) -> None:
        """Send SIGKILL: the runner can notify nobody."""
        self.process.kill()
        self.process.wait(WAIT_LIMIT)


class Site:
    """A store and policies of one account at a venue."""

    def __init__(self, folder: Path, world: World, *documents: str, **account: str) -> None:
        """`account`: more keys of the Account document."""
        self._folder = folder
        self._world = world
        self.store = folder / "store.sqlite"
        self.recording = folder / "seen.jsonl"
        self._policies = folder / "policies"
        self._policies.mkdir(parents=True)
        self._runs = 0
        written = [*documents, world.access.account(world.address, world.address_ws, **account)]
        for number, document in enumerate(written):
            self.write(f"{number}.yaml", document)

    def write(self, name: str, document: str) -> None:
        """Write a document; it replaces one of the same name."""
        (self._policies / name).write_text(document, encoding="utf-8")

    @property
    def place(self) -> tuple[str, ...]:
        """The options that name the policies, the store and the locks."""
        locks = str(self._folder / "locks")
        return ("--policies", str(self._policies), "--store", str(self.store), "--lock-dir", locks)

    @contextmanager
    def running(self, *options: str) -> Iterator[Run]:
        """Run `ksctl run --live`; kill it at the end if it still runs."""
        self._runs += 1
        log = self._folder / f"err-{self._runs}.txt"
        with log.open("w", encoding="utf-8") as err:
            runner = begin(
                ["run", *self.place, "--live", "--record", str(self.recording), *options],
                stdout=subprocess.DEVNULL, stderr=err, env=self._world.access.environment(),
            )  # fmt: skip
        try:
            yield Run(runner, log)
        finally:
            if runner.poll() is None:
                runner.kill()
                runner.wait()

    def snapshots(self) -> list[dict[str, Any]]:
        """The recorded snapshots, complete lines only."""
        if not self.recording.exists():
            return []
        lines = self.recording.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def view(self) -> RunnerView | None:
        """What `ksctl status` shows of the runner; None before its first tick."""
        status = self._status()
        return None if status is None else status.view

    def notices(self) -> tuple[Notice, ...]:
        """The newest notices."""
        status = self._status()
        return () if status is None else status.notices

    def _status(self) -> StoreStatus | None:
        return status_of(self.store)


def status_of(path: Path) -> StoreStatus | None:
    """The status in the store at this path; None while there is no store."""
    try:
        store = open_store(str(path), read_only=True)
    except StoreError:
        return None  # not created yet
    try:
        return store_status(store, datetime.now(UTC), 100)
    except StoreError:
        return None  # being created
    finally:
        store.close()


def has_polled(path: Path) -> bool:
    """Whether the store's runner has polled every account completely, so that a fall has a price before it."""
    status = status_of(path)
    if status is None or status.view is None:
        return False
    return all(account.quality == "ok" and account.equity is not None for account in status.view.accounts)
