"""freqtrade as installed: with real orders against a venue on loopback, long and short, and in a dry run."""

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

import pytest

from tests.bots.desk import PROGRAMS, LockFile, allowing_gate, blocks, filled_in, running, until
from tests.bots.environments import environment_of
from tests.bots.served import free_port, served_account
from tests.e2e.wire_venues import VENUES, World, wire
from tests.wire.server import KEY, SECRET

pytestmark = pytest.mark.bots
BTC, ETH, SOL, XRP = PAIRS = tuple(f"{base}/USDT:USDT" for base in ("BTC", "ETH", "SOL", "XRP"))
NO_WISHES: Final[dict[str, Any]] = {"enter": {}, "price": {}, "reprice": {}, "add": {}, "exit": []}
LOOPS: Final = 4
"""Loops of the bot in which something that is wished must not happen."""


class Desk:
    """A bot at a venue, and what it is made to want. `port`: that of its own API."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world, self.port = folder, world, free_port()
        self._wishes = dict(NO_WISHES)
        self.process: subprocess.Popen[str] | None = None

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
        return [(symbol, side) for symbol, side, flag in self.sent() if not flag]

    def is_held(self, pair: str) -> bool:
        """Whether the venue holds a position in a pair."""
        return any(key.startswith(f"{pair} ") for key in self.world.held())

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
    """A bot for futures at the venue on loopback. `section`: the page's part of it."""
    paths = {f"fapi{what}{version}": f"{world.address}/fapi/{version.lower() or 'v1'}"
             for what in ("Public", "Private") for version in ("", "V2", "V3")}  # fmt: skip
    others = {name: f"{world.address}/{name}/v1" for name in ("sapi", "dapiPublic", "dapiPrivate", "public", "private")}
    ccxt = {"enableRateLimit": False, "urls": {"api": paths | others},
            "options": {"fetchCurrencies": False, "fetchMarkets": {"types": ["linear"]}}}  # fmt: skip
    return section | {
        "dry_run": dry_run, "dry_run_wallet": 100_000, "trading_mode": "futures", "margin_mode": "isolated",
        "stake_currency": "USDT", "stake_amount": 200, "max_open_trades": 10, "force_entry_enable": True,
        "exchange": {"name": "binance", "key": KEY, "secret": SECRET, "enable_ws": False, "ccxt_config": ccxt,
                     "pair_whitelist": list(PAIRS)},
        "entry_pricing": {"price_side": "other", "use_order_book": True, "order_book_top": 1},
        "exit_pricing": {"price_side": "other", "use_order_book": True, "order_book_top": 1},
        "pairlists": [{"method": "StaticPairList"}], "internals": {"process_throttle_secs": 1},
        "unfilledtimeout": {"entry": 60, "exit": 60, "unit": "minutes"}, "initial_state": "running",
        "api_server": {"enabled": True, "listen_ip_address": "127.0.0.1", "listen_port": port, "username": "tester",
                       "password": "secret", "jwt_secret_key": "0" * 40, "verbosity": "error"},
    }  # fmt: skip


SHOWN_LOCK: Final = '"/var/lib/killswitch/ks.sqlite.locks/account__main.json"'


@contextmanager
def desk(folder: Path, *, dry_run: bool = False, gate: str | None = None, **wishes: Any) -> Iterator[LockedDesk]:
    """A bot at a venue of its own, by the lock file alone, or by `gate`: the address of one that a test plays."""
    with wire("binance", *(f"--symbol={pair}" for pair in PAIRS)) as addresses:
        made = LockedDesk(folder, World(VENUES["binance"], **addresses))
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


@pytest.mark.parametrize("direction", ["long", "short"])
def test_no_road_of_freqtrade_opens_anything_while_locked_and_exits_pass(tmp_path: Path, direction: str) -> None:
    """Real orders: entries, additions, re-pricings, resting ones and /forceenter stop; exits and stops do not."""
    far = 50.0 if direction == "long" else 150.0
    with desk(tmp_path, enter={BTC: direction, ETH: direction, SOL: direction}, price={ETH: far}) as bot:
        until(lambda: bot.is_held(BTC) and bot.is_held(SOL), "the bot holds BTC and SOL")
        until(lambda: len(bot.entries()) == 3 and not bot.is_held(ETH), "an entry of ETH rests")
        assert len(rests_as_entry(bot)) == 1
        until(lambda: len(stops_of(bot)) == 2, "a stop of each position rests")
        bot.lock.lock()
        until(lambda: not rests_as_entry(bot), "the resting entry is cancelled")
        confirmed, before = bot.calls("confirm_trade_entry"), bot.entries()
        bot.wish(enter={XRP: direction, ETH: direction}, price={}, reprice={ETH: far + 1}, add={BTC: 100})
        asked = bot.calls("adjust_trade_position")
        assert bot.ask("forceenter", pair=XRP, side=direction) != 200
        assert bot.ask("forceenter", pair=BTC, side=direction) != 200
        bot.loop()
        assert bot.entries() == before, "nothing that may open has reached the venue"
        assert bot.calls("confirm_trade_entry") == confirmed, "the strategy's own callback is not asked"
        assert bot.calls("adjust_trade_position") > asked, "the addition was wished"
        assert "is not sent" in bot.log()

        closing = "sell" if direction == "long" else "buy"
        bot.wish(add={BTC: -100}, exit=[SOL])
        until(lambda: not bot.is_held(SOL), "SOL is closed")
        until(lambda: (BTC, closing, True) in bot.sent(), "a part of BTC is closed, reduce-only")
        until(lambda: stops_of(bot), "the stop of what is left of BTC rests")
        assert bot.entries() == before

        bot.wish(add={}, exit=[], enter={XRP: direction, ETH: direction, SOL: direction})
        bot.lock.open()
        until(lambda: len(bot.entries()) > len(before), "the bot enters again")
        bot.loop()
        assert len(bot.entries()) == len(before) + 1, "one of three at a time"


def rests_as_entry(bot: Desk) -> list[str]:
    """Resting orders of the bot that are no stops: their client order ids are those of our mixin."""
    return [name for name in bot.world.state()["rests"] if name.startswith("ks")]


def stops_of(bot: Desk) -> list[str]:
    """Stops that rest at the venue, which freqtrade sends by a call of its own."""
    return [name for name in bot.world.state()["rests"] if not name.startswith("ks")]


def test_in_a_dry_run_a_gate_that_is_gone_lets_no_entry_through_and_every_exit(tmp_path: Path) -> None:
    """The gate allows two entries and ends while the lock file is open: entries fail closed, exits open."""
    with allowing_gate() as gate:
        address = f"http://127.0.0.1:{gate.server_port}"
        with desk(tmp_path, dry_run=True, gate=address, enter={BTC: "long", ETH: "short"}) as bot:
            until(lambda: len(bot.orders()) == 2, "both pairs are entered")
            gate.shutdown()
            gate.server_close()
            assert bot.ask("forceenter", pair=SOL, side="long") != 200
            bot.wish(enter={XRP: "long"}, add={BTC: 100})
            bot.loop()
            assert len(bot.orders()) == 2
            bot.wish(add={}, exit=[BTC, ETH])
            until(lambda: sorted(bot.orders()[2:]) == [(BTC, "sell"), (ETH, "buy")], "both are closed")


def test_in_a_dry_run_a_defect_of_the_class_is_no_consent(tmp_path: Path) -> None:
    """freqtrade takes an exception in confirm_trade_entry for a yes; ours never gets there."""
    with desk(tmp_path, dry_run=True, enter={BTC: "long", ETH: "short"}, broken=True) as bot:
        assert bot.ask("forceenter", pair=SOL, side="long") != 200
        bot.loop()
        assert bot.orders() == []


def test_in_a_dry_run_entries_stop_and_exits_go_on(tmp_path: Path) -> None:
    """By the bot's own records: nothing of a dry run reaches the venue."""
    with desk(tmp_path, dry_run=True, enter={BTC: "long", ETH: "short"}) as bot:
        until(lambda: len(bot.orders()) == 2, "both pairs are entered")
        bot.lock.lock()
        bot.wish(enter={SOL: "long"}, add={BTC: 100})
        bot.loop()
        assert len(bot.orders()) == 2
        bot.wish(add={}, exit=[BTC, ETH])
        until(lambda: sorted(bot.orders()[2:]) == [(BTC, "sell"), (ETH, "buy")], "both are closed")
        assert bot.sent() == []


def test_by_the_gate_entries_stop_at_a_limit_at_a_stage_and_without_the_gate_and_exits_pass(tmp_path: Path) -> None:
    """Real orders, and a real run with its server: the reason of each refusal is in the bot's log."""
    options = ("--equity=1000", *(f"--symbol={pair}" for pair in PAIRS))
    with served_account(tmp_path, *options, watch=PAIRS) as account, account.running_apart():
        shown = {SHOWN_LOCK: json.dumps(str(account.lock_file)), "http://127.0.0.1:8600": account.gate}
        section = json.loads(filled_in(blocks("freqtrade.md", "json")[1], shown))
        bot = Desk(tmp_path, account.world)
        with trading(bot, section, token=account.token, enter={BTC: "long"}):
            until(lambda: bot.is_held(BTC), "the gate has warmed up, and allows an entry")
            bot.require_refused(SOL, "an order of 400.00 USDT is above the limit of 300.00 USDT", stakeamount=400)

            account.lose_gate()
            bot.wish(enter={XRP: "long"}, add={BTC: 100})
            bot.require_refused(SOL, "the gate gives no verdict")
            account.require_open()
            bot.loop()
            assert bot.entries() == [(BTC, "buy")], "neither the signal nor the addition"
            bot.wish(add={}, exit=[BTC])
            until(lambda: not bot.is_held(BTC), "the position is closed")

            account.bring_gate()
            bot.wish(enter={ETH: "long", SOL: "long"}, exit=[])
            until(lambda: bot.is_held(ETH) and bot.is_held(SOL), "the bot enters again")
            entered = bot.entries()
            account.world.move("price", symbol=ETH, price="70")  # 60 USDT of 1000 are lost
            until(lambda: account.mode() == "reduce_only", "the stage has locked trading")
            bot.wish(enter={XRP: "long"})
            bot.require_refused(XRP, "the lock file says reduce_only")
            bot.wish(exit=[ETH])
            until(lambda: not bot.is_held(ETH), "a position is closed under the lock")
            account.lose_gate()
            bot.wish(exit=[SOL])
            until(lambda: not bot.is_held(SOL), "another one, by the lock file alone")
            bot.loop()
            assert bot.entries() == entered
