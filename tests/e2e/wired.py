"""Wire-level venues as processes of their own, and what an account document needs to reach one through `ksctl`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from tests.e2e.processes import KSCTL, PATIENCE
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
USDT: Final = ("BTC/USDT:USDT", "ETH/USDT:USDT")

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
        """Change the world: `price`, `equity`, `trade`."""
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
        return subprocess.run(
            [*KSCTL, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False,
            env=self.reached.environment(),
        )  # fmt: skip


@contextmanager
def venue(reached: Reached, *options: str) -> Iterator[World]:
    """The venue with a long and a short position and an entry order that rests."""
    book = [f"--position={symbol}={amount}" for symbol, amount in zip(reached.symbols, reached.book, strict=True)]
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.wire", reached.wire, *book, "--orders=1", *options],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    try:
        assert server.stdout is not None
        yield World(reached, **json.loads(server.stdout.readline()))
    finally:
        server.terminate()
        server.wait(10)
        assert server.stdout is not None
        server.stdout.close()
