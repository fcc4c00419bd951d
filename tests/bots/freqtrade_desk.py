"""freqtrade as installed, at a venue on loopback: on futures at Binance, on spot at OKX."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from tests.bots.desk import PROGRAMS, LockFile, blocks, filled_in, running, until
from tests.bots.environments import environment_of
from tests.bots.served import free_port
from tests.e2e.wire_venues import VENUES, VenueAccess, World, wire
from tests.wire.server import KEY, PASSPHRASE, SECRET

BTC, ETH, SOL, XRP = PAIRS = tuple(f"{base}/USDT:USDT" for base in ("BTC", "ETH", "SOL", "XRP"))
COINS: Final = tuple(pair.partition(":")[0] for pair in PAIRS)
"""The same on spot."""
NO_WISHES: Final[dict[str, Any]] = {"enter": {}, "price": {}, "reprice": {}, "add": {}, "exit": []}
SPOT: Final = replace(VENUES["okx"], market="spot", symbols=("BTC/USDT", "ETH/USDT"))
"""OKX's spot market."""
LOOPS: Final = 4
"""Loops of the bot in which something that is wished must not happen."""


DUST: Final = 0.01
"""Contracts or coins that may be left of a position: on spot a fee is paid in the coin."""


class Desk:
    """A bot at a venue, and what it is made to want. `port`: that of its own API."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world, self.port = folder, world, free_port()
        self._wishes = dict(NO_WISHES)
        self.process: subprocess.Popen[str] | None = None

    @property
    def is_spot(self) -> bool:
        """Whether it trades on spot, where a venue knows no reduce-only orders, and a sale is the exit."""
        return self.world.access.market == "spot"

    def wish(self, **changed: Any) -> None:
        """What the strategy wants from now on."""
        self._wishes |= changed
        unfinished = self.folder / "wishes.new"
        unfinished.write_text(json.dumps(self._wishes))
        unfinished.replace(self.folder / "wishes.json")

    def calls(self, name: str) -> int:
        """How often freqtrade has called this hook of the strategy."""
        path = self.folder / "calls.json"
        return int(json.loads(path.read_text()).get(name, 0)) if path.exists() else 0

    def loop(self, times: int = LOOPS) -> None:
        """Wait until the bot's loop has begun so many times."""
        seen = self.calls("loops")
        until(lambda: self.calls("loops") >= seen + times or self.has_ended(), "the bot loops")

    def has_ended(self) -> bool:
        """Whether the bot's process is gone; then the test fails with its log."""
        assert self.process is None or self.process.poll() is None, self.log()[-3000:]
        return False

    def log(self) -> str:
        """What the bot has written."""
        return (self.folder / "bot.log").read_text(encoding="utf-8")

    def sent(self) -> list[tuple[str, str, bool]]:
        """Orders that reached the venue: pair, side, whether reduce-only."""
        return [(symbol, side, flag) for symbol, side, _, flag in self.world.state()["sent"]]

    def entries(self) -> list[tuple[str, str]]:
        """Those that may open."""
        return [
            (symbol, side) for symbol, side, flag in self.sent() if not flag and (side == "buy" or not self.is_spot)
        ]

    def is_held(self, pair: str) -> bool:
        """Whether the venue holds a position in a pair."""
        return any(key.startswith(f"{pair} ") and float(amount) > DUST for key, amount in self.world.held().items())

    def ask(self, path: str, **body: Any) -> int:
        """A POST to the bot's own API; the status."""
        headers = {"Content-Type": "application/json",
                   "Authorization": "Basic " + base64.b64encode(b"tester:secret").decode()}  # fmt: skip
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v1/{path}", json.dumps(body).encode(), headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def require_refused(self, pair: str, reason: str, **more: Any) -> None:
        """/forceenter ends in an error, nothing that may open reaches the venue, and the log has the reason."""
        before = self.entries()
        assert self.ask("forceenter", pair=pair, side="long", **more) != 200
        assert self.entries() == before
        until(lambda: any(f"buy {pair} is not sent: {reason}" in line for line in self.log().splitlines()), reason)

    def orders(self) -> list[tuple[str, str]]:
        """Pair and side of the orders in the bot's own records, without stops; a dry run has them, too."""
        with sqlite3.connect(f"file:{self.folder / 'trades.sqlite'}?mode=ro", uri=True) as database:
            rows = database.execute(
                "SELECT ft_pair, side FROM orders WHERE ft_order_side != 'stoploss' ORDER BY id"
            ).fetchall()
        database.close()
        return [(str(pair), str(side)) for pair, side in rows]


class LockedDesk(Desk):
    """A bot that reads a lock file of the test."""

    def __init__(self, folder: Path, world: World) -> None:
        super().__init__(folder, world)
        self.lock = LockFile(folder / "account__main.json")


def configuration(world: World, section: dict[str, Any], port: int, *, dry_run: bool) -> dict[str, Any]:
    """A bot at the venue on loopback. `section`: the page's part of it."""
    return section | (_of_spot(world) if world.access.market == "spot" else _of_futures(world)) | {
        "dry_run": dry_run, "dry_run_wallet": 100_000, "stake_currency": "USDT", "stake_amount": 200,
        "max_open_trades": 10, "force_entry_enable": True,
        "entry_pricing": {"price_side": "other", "use_order_book": True, "order_book_top": 1},
        "exit_pricing": {"price_side": "other", "use_order_book": True, "order_book_top": 1},
        "pairlists": [{"method": "StaticPairList"}], "internals": {"process_throttle_secs": 1},
        "unfilledtimeout": {"entry": 60, "exit": 60, "unit": "minutes"}, "initial_state": "running",
        "api_server": {"enabled": True, "listen_ip_address": "127.0.0.1", "listen_port": port, "username": "tester",
                       "password": "secret", "jwt_secret_key": "0" * 40, "verbosity": "error"},
    }  # fmt: skip


def _of_futures(world: World) -> dict[str, Any]:
    paths = {f"fapi{what}{version}": f"{world.address}/fapi/{version.lower() or 'v1'}"
             for what in ("Public", "Private") for version in ("", "V2", "V3")}  # fmt: skip
    others = {name: f"{world.address}/{name}/v1" for name in ("sapi", "dapiPublic", "dapiPrivate", "public", "private")}
    ccxt = {"enableRateLimit": False, "urls": {"api": paths | others},
            "options": {"fetchCurrencies": False, "fetchMarkets": {"types": ["linear"]}}}  # fmt: skip
    exchange = {"name": "binance", "key": KEY, "secret": SECRET, "enable_ws": False, "ccxt_config": ccxt,
                "pair_whitelist": list(PAIRS)}  # fmt: skip
    return {"trading_mode": "futures", "margin_mode": "isolated", "exchange": exchange}


def _of_spot(world: World) -> dict[str, Any]:
    ccxt = {"enableRateLimit": False, "urls": {"api": {"rest": world.address}},
            "options": {"fetchCurrencies": False, "fetchMarkets": {"types": ["spot"]}}}  # fmt: skip
    exchange = {"name": "okx", "key": KEY, "secret": SECRET, "password": PASSPHRASE, "enable_ws": False,
                "ccxt_config": ccxt, "pair_whitelist": list(COINS)}  # fmt: skip
    # A market buy of ccxt's on spot is for a cost: all entries are limit orders.
    types = {"entry": "limit", "exit": "market", "stoploss": "market", "stoploss_on_exchange": False,
             "force_entry": "limit", "emergency_exit": "market"}  # fmt: skip
    return {"trading_mode": "spot", "exchange": exchange, "order_types": types}


def market_options(access: VenueAccess) -> tuple[str, ...]:
    """The options of a venue with the markets of the bot, without a position."""
    if access.market == "spot":
        return ("--mode=spot", *(f"--symbol={coin}" for coin in COINS))
    return tuple(f"--symbol={pair}" for pair in PAIRS)


SHOWN_LOCK: Final = '"/var/lib/killswitch/ks.sqlite.locks/account__main.json"'


@contextmanager
def desk(
    folder: Path, access: VenueAccess = VENUES["binance"], *, dry_run: bool = False, gate: str | None = None,
    **wishes: Any,
) -> Iterator[LockedDesk]:  # fmt: skip
    """A bot at a venue of its own, by the lock file alone, or by `gate`: the address of one that a test plays."""
    with wire(access.wire, *market_options(access)) as addresses:
        made = LockedDesk(folder, World(access, **addresses))
        shown = {SHOWN_LOCK: json.dumps(str(made.lock.path))}
        section = json.loads(filled_in(blocks("freqtrade.md", "json")[0 if gate is None else 1], shown))
        section["killswitch"] |= {"pause_after_lock": 3600} if gate is None else {"gate": gate, "timeout": 0.3}
        with trading(made, section, dry_run=dry_run, **wishes):
            yield made


@contextmanager
def trading(
    made: Desk, section: dict[str, Any], *, dry_run: bool = False, token: str | None = None, **wishes: Any
) -> Iterator[None]:
    """Follow the page: its strategy, its section of the configuration, and `freqtrade trade`."""
    environment, folder = environment_of("freqtrade"), made.folder
    body = (PROGRAMS / "freqtrade_body.txt").read_text(encoding="utf-8")
    (folder / "strategies").mkdir()
    if made.is_spot:
        body = filled_in(body, {"can_short = True": "can_short = False"})
    (folder / "strategies" / "MyStrategy.py").write_text(
        filled_in(blocks("freqtrade.md")[0], {"    ...\n": body}), encoding="utf-8"
    )
    made.wish(**wishes)
    settings = configuration(made.world, section, made.port, dry_run=dry_run)
    (folder / "config.json").write_text(json.dumps(settings))
    words = ["-m", "freqtrade", "trade", "-c", "config.json", "--strategy", "MyStrategy", "--userdir", str(folder),
             "--strategy-path", "strategies", "--db-url", f"sqlite:///{folder}/trades.sqlite"]  # fmt: skip
    with (folder / "bot.log").open("w") as log, running(environment, folder, *words, log=log, token=token) as process:
        made.process = process
        made.loop(2)
        assert "killswitch: every order of this bot is judged" in made.log()
        yield
