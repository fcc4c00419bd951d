"""Wire-level venues as processes of their own, and what an account document needs to reach one through `ksctl`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from killswitch.model.decision import Notice
from killswitch.operations.status import StoreStatus, store_status
from killswitch.runner.status_blob import RunnerView
from killswitch.store.errors import StoreError
from killswitch.store.sqlite import open_store
from tests.e2e.forks import REPOSITORY, Process, begin, finish
from tests.e2e.processes import PATIENCE
from tests.wire.server import KEY, PASSPHRASE, SECRET


@dataclass(frozen=True)
class Reached:
    """How a user's documents reach one venue. `secrets`: credential → the value that the environment has."""

    wire: str
    adapter: str
    exchange: str | None
    currency: str
    symbols: tuple[str, str]
    secrets: Mapping[str, str]
    market: str = "swap"
    book: tuple[str, str] = ("2", "-3")

    def variable(self, credential: str) -> str:
        """The environment variable that holds it."""
        return f"KS_TEST_{credential.upper()}"

    def environment(self) -> dict[str, str]:
        """What the credentials' references resolve to."""
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
ENDING: Final = 10.0
"""Seconds that a venue may take over SIGTERM before it is killed."""

REACHED: Final[Mapping[str, Reached]] = {
    "binance": Reached("binance", "ccxt", "binanceusdm", "USDT", USDT, KEYS),
    "bybit": Reached("bybit", "ccxt", "bybit", "USDT", USDT, KEYS),
    "bitget": Reached("bitget", "ccxt", "bitget", "USDT", USDT, WITH_PHRASE),
    "okx": Reached("okx", "ccxt", "okx", "USDT", USDT, WITH_PHRASE),
    "krakenfutures": Reached(
        "krakenfutures", "ccxt", "krakenfutures", "USD", ("BTC/USD:USD", "ETH/USD:USD"),
        {"key": KEY, "secret": "U0VDUkVULVBMQU5URUQ="},
    ),
    "mexc": Reached("mexc", "ccxt", "mexc", "USDT", USDT, KEYS),
    "alpaca": Reached("alpaca", "alpaca", None, "USD", ("AAPL", "MSFT"), KEYS, market="equity", book=("20", "30")),
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """A running venue: its addresses, and the hand that moves it."""

    reached: Reached
    address: str
    address_ws: str
    control: str

    def move(self, what: str, **query: str) -> None:
        """Change the world: `price`, `equity`, `trade`, `order`, `hang_up`."""
        asked = "&".join(f"{name}={quote(value)}" for name, value in query.items())
        request = urllib.request.Request(f"{self.control}/{what}?{asked}", method="POST")
        with urllib.request.urlopen(request, timeout=10):
            pass

    def state(self) -> dict[str, Any]:
        """The truth."""
        with urllib.request.urlopen(f"{self.control}/state", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def held(self) -> dict[str, str]:
        """Position → contracts, without what is closed."""
        return {key: amount for key, amount in self.state()["held"].items() if float(amount)}

    def ksctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command with the credentials in its environment, run to its end."""
        return finish(arguments, timeout=PATIENCE, env=self.reached.environment())


@contextmanager
def venue(reached: Reached, *options: str) -> Iterator[World]:
    """The venue with a long and a short position and an entry order that rests."""
    book = [f"--position={symbol}={amount}" for symbol, amount in zip(reached.symbols, reached.book, strict=True)]
    with wire(reached.wire, *book, "--orders=1", *options) as addresses:
        yield World(reached, **addresses)


@contextmanager
def wire(name: str, *options: str) -> Iterator[dict[str, str]]:
    """The addresses of a wire-level venue in a process of its own."""
    with begin((name, *options), code=WIRE, stdout=subprocess.PIPE, cwd=REPOSITORY) as server:
        try:
            assert server.stdout is not None
            addresses: dict[str, str] = json.loads(server.stdout.readline())
            yield addresses
        finally:
            server.terminate()
            try:
                server.wait(ENDING)
            except subprocess.TimeoutExpired:
                server.kill()


class Run:
    """A runner as a process."""

    def __init__(self, process: Process, words: Path) -> None:
        self.process = process
        self._words = words

    @property
    def said(self) -> str:
        """What it has written to stderr up to now."""
        return self._words.read_text(encoding="utf-8")

    @property
    def over(self) -> bool:
        """Whether it has ended by itself."""
        return self.process.poll() is not None

    def terminate(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """SIGKILL: it cannot say a word, to nobody."""
        self.process.kill()
        self.process.wait(PATIENCE)


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
        written = [*documents, world.reached.account(world.address, world.address_ws, **account)]
        for number, document in enumerate(written):
            self.write(f"{number}.yaml", document)

    def write(self, name: str, document: str) -> None:
        """A document, in the place of the one that had this name."""
        (self._policies / name).write_text(document, encoding="utf-8")

    @property
    def place(self) -> tuple[str, ...]:
        """The options that name the policies, the store and the locks."""
        locks = str(self._folder / "locks")
        return ("--policies", str(self._policies), "--store", str(self.store), "--lock-dir", locks)

    @contextmanager
    def running(self, *options: str) -> Iterator[Run]:
        """`ksctl run --live`; killed at the end if it still runs."""
        self._runs += 1
        words = self._folder / f"err-{self._runs}.txt"
        with words.open("w", encoding="utf-8") as err:
            runner = begin(
                ["run", *self.place, "--live", "--record", str(self.recording), *options],
                stdout=subprocess.DEVNULL, stderr=err, env=self._world.reached.environment(),
            )  # fmt: skip
        try:
            yield Run(runner, words)
        finally:
            if runner.poll() is None:
                runner.kill()
                runner.wait()

    def seen(self) -> list[dict[str, Any]]:
        """The snapshots that were recorded, whole lines only."""
        if not self.recording.exists():
            return []
        lines = self.recording.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def view(self) -> RunnerView | None:
        """What `ksctl status` shows of the runner; None before its first tick."""
        standing = self._standing()
        return None if standing is None else standing.view

    def notices(self) -> tuple[Notice, ...]:
        """The newest ones."""
        standing = self._standing()
        return () if standing is None else standing.notices

    def _standing(self) -> StoreStatus | None:
        return standing(self.store)


def standing(at: Path) -> StoreStatus | None:
    """What the store at this path says of its runner; None while there is none."""
    try:
        store = open_store(str(at), read_only=True)
    except StoreError:
        return None  # not there yet
    try:
        return store_status(store, datetime.now(UTC), 100)
    except StoreError:
        return None  # being made at this moment
    finally:
        store.close()


def has_read(at: Path) -> bool:
    """Whether a tick of the store's runner has judged every account whole: a fall has a price before it then."""
    seen = standing(at)
    if seen is None or seen.view is None:
        return False
    return all(account.quality == "ok" and account.equity is not None for account in seen.view.accounts)
