"""The mixin of freqtrade without freqtrade: what it wraps, what it asks, what it adds to an order and reports."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ccxt
import pytest

from killswitch.integrations.freqtrade_mixin import KillswitchFreqtrade
from tests.unit.integrations.asked_gate import AskedGate, lock_at

TRADE = SimpleNamespace(pair="BTC/USDT:USDT", entry_side="buy", exit_side="sell")
ENTRY = {"pair": "BTC/USDT:USDT", "ordertype": "limit", "side": "buy", "amount": 0.5, "rate": 100.0, "leverage": 1.0}


class DependencyException(Exception):  # noqa: N818 - freqtrade's own name
    """That of freqtrade."""


class Exchange:
    """What freqtrade's exchange has of interest."""

    def __init__(self, mode: str = "futures", *, dry_run: bool = False) -> None:
        self._config = {"dry_run": dry_run}
        self.trading_mode = SimpleNamespace(value=mode)
        self.sent: list[Any] = []
        self.fails: Exception | None = None

    def _get_params(self, **_: Any) -> dict[str, Any]:
        return {"timeInForce": "GTC"}

    def create_order(self, **call: Any) -> Any:
        if self.fails is not None:
            raise self.fails
        self.sent.append((call, self._get_params()))
        return {"id": "1"}


class Base:
    """In the place of IStrategy."""

    def __init__(self, config: Any, exchange: Exchange, runmode: str = "live") -> None:
        self.config = config
        self.dp = SimpleNamespace(runmode=SimpleNamespace(value=runmode), **{"_exchange": exchange})

    def adjust_entry_price(self, **_: Any) -> float:
        """The default of freqtrade, which is not wrapped."""
        return 1.0


class Plain(KillswitchFreqtrade, Base):
    """A strategy without callbacks."""


class Own(KillswitchFreqtrade, Base):
    """A strategy with all of them."""

    started = False

    def bot_start(self, **_: Any) -> None:
        """Hides that of the mixin."""
        self.started = self.killswitch is not None

    def confirm_trade_entry(self, pair: str, *_: Any, **named: Any) -> bool:
        """Fails where the test wants it."""
        if named.get("fails"):
            raise RuntimeError("a defect of the strategy")
        return True

    def check_entry_timeout(self, pair: str, trade: Any, *_: Any, **__: Any) -> bool:
        """Never times out."""
        return False

    def adjust_trade_position(self, trade: Any, *_: Any, **named: Any) -> Any:
        """What the test wants."""
        return named["wanted"]

    def adjust_order_price(self, trade: Any, *_: Any, **__: Any) -> float:
        """Another price."""
        return 99.0


@pytest.fixture(autouse=True)
def freqtrade(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that the bot has loaded."""
    monkeypatch.setitem(sys.modules, "freqtrade.exceptions", SimpleNamespace(DependencyException=DependencyException))


def started(kind: Any, lock: str, exchange: Exchange | None = None, **more: Any) -> tuple[Any, Exchange]:
    """A strategy whose bot has started."""
    exchange = exchange or Exchange()
    strategy = kind({"killswitch": {"lock_file": lock, "pause_after_lock": 0}}, exchange, **more)
    strategy.bot_start()
    return strategy, exchange


def asking(exchange: Exchange, *verdicts: str, **more: Any) -> AskedGate:
    """Let a gate with these verdicts decide at this exchange."""
    from killswitch.integrations import OrderPermits

    gate = AskedGate(*verdicts, **more)
    guard: Any = exchange
    guard.killswitch_guard.permits = OrderPermits("main", gate=gate)
    return gate


def test_while_locked_no_callback_of_the_class_enters_adds_or_re_prices(tmp_path: Path) -> None:
    """Exits of `adjust_trade_position` pass; open again, the class decides."""
    path = tmp_path / "lock.json"
    strategy, _ = started(Own, lock_at(path, "reduce_only"))
    assert strategy.started
    assert not strategy.confirm_trade_entry("BTC/USDT:USDT", side="long")
    assert strategy.check_entry_timeout("BTC/USDT:USDT", TRADE)
    assert strategy.adjust_trade_position(TRADE, wanted=100.0) is None
    assert strategy.adjust_trade_position(TRADE, wanted=(100.0, "tag")) is None
    assert strategy.adjust_trade_position(TRADE, wanted=-100.0) == -100.0
    assert strategy.adjust_order_price(TRADE, is_entry=True) is None
    assert strategy.adjust_order_price(TRADE, is_entry=False) == 99.0
    lock_at(path)
    assert strategy.confirm_trade_entry("BTC/USDT:USDT", side="long")
    assert not strategy.confirm_trade_entry("BTC/USDT:USDT", side="long", fails=True), "no consent"
    assert not strategy.check_entry_timeout("BTC/USDT:USDT", TRADE)
    assert strategy.adjust_trade_position(TRADE, wanted=100.0) == 100.0
    assert strategy.adjust_order_price(TRADE, is_entry=True) == 99.0


def test_only_what_a_class_defines_is_wrapped(tmp_path: Path) -> None:
    """freqtrade loads no class with both ways to re-price."""
    assert Plain.adjust_entry_price is Base.adjust_entry_price
    strategy, _ = started(Plain, lock_at(tmp_path / "lock.json", "reduce_only"))
    assert not strategy.confirm_trade_entry("BTC/USDT:USDT", "limit", 1, 2, "GTC", None, None, side="short")
    assert strategy.check_entry_timeout("BTC/USDT:USDT", TRADE, None, None)


def test_what_is_locked_is_refused_by_an_error_that_freqtrade_handles(tmp_path: Path) -> None:
    """An exit of futures passes by its flag, one of spot by its side; under `all` nothing does."""
    path = tmp_path / "lock.json"
    for mode, leaving in (("futures", {"side": "sell", "reduceOnly": True}), ("spot", {"side": "sell"})):
        _, exchange = started(Plain, lock_at(path, "reduce_only"), Exchange(mode))
        with pytest.raises(DependencyException, match="buy BTC/USDT:USDT is not sent"):
            exchange.create_order(**ENTRY)
        exchange.create_order(**ENTRY | leaving)
        lock_at(path, "all")
        with pytest.raises(DependencyException):
            exchange.create_order(**ENTRY | leaving)
        assert [call["side"] for call, _ in exchange.sent] == ["sell"]
    _, exchange = started(Plain, lock_at(path, "reduce_only"))
    with pytest.raises(DependencyException):
        exchange.create_order(**ENTRY | {"side": "sell"})


def test_the_gate_is_asked_in_base_units_and_finds_the_order_by_its_id(tmp_path: Path) -> None:
    """freqtrade's amounts are units of the base asset; a price of a market order says nothing."""
    _, exchange = started(Plain, lock_at(tmp_path / "lock.json"))
    gate = asking(exchange, "allowed")
    exchange.create_order(**ENTRY)
    exchange.create_order(**ENTRY | {"ordertype": "market", "side": "sell", "reduceOnly": True})
    (entry,), (leaving,) = gate.asked
    names = [params["clientOrderId"] for _, params in exchange.sent]
    assert entry == {"symbol": "BTC/USDT:USDT", "side": "buy", "amount": "0.5", "unit": "base", "type": "limit",
                     "price": "100.0", "client_order_id": names[0]}  # fmt: skip
    assert leaving == {"symbol": "BTC/USDT:USDT", "side": "sell", "amount": "0.5", "unit": "base", "type": "market",
                       "reduce_only": True, "client_order_id": names[1]}  # fmt: skip
    assert names[0] != names[1]


def test_a_refusal_and_an_order_of_a_dry_run_are_reported(tmp_path: Path) -> None:
    """A time-out is not: the order may exist."""
    _, exchange = started(Plain, lock_at(tmp_path / "lock.json"))
    gate = asking(exchange, "allowed")
    for cause in (ccxt.InsufficientFunds("x"), ccxt.RequestTimeout("x")):
        exchange.fails = DependencyException("as freqtrade wraps it")
        exchange.fails.__cause__ = cause
        with pytest.raises(DependencyException):
            exchange.create_order(**ENTRY)
    assert gate.reported == ["refused"]
    _, exchange = started(Plain, lock_at(tmp_path / "lock.json"), Exchange(dry_run=True))
    gate = asking(exchange, "allowed")
    exchange.create_order(**ENTRY)
    assert gate.reported == ["not_sent"]


def test_an_order_that_cannot_be_judged_is_sent_only_if_the_venue_bounds_it(tmp_path: Path) -> None:
    """A broken amount, or a defect of the class."""
    _, exchange = started(Plain, lock_at(tmp_path / "lock.json"))
    with pytest.raises(DependencyException, match="could not be judged"):
        exchange.create_order(**ENTRY | {"amount": object()})
    exchange.create_order(**ENTRY | {"amount": object(), "reduceOnly": True})
    assert len(exchange.sent) == 1


def test_a_backtest_is_untouched_and_a_bot_without_settings_does_not_start(tmp_path: Path) -> None:
    """The settings are missing, misspelt or name nothing."""
    strategy, exchange = started(Own, lock_at(tmp_path / "lock.json", "all"), runmode="backtest")
    assert strategy.killswitch is None
    assert strategy.confirm_trade_entry("BTC/USDT:USDT", side="long")
    exchange.create_order(**ENTRY)
    mistaken: list[dict[str, Any]] = [{}, {"killswitch": {}}, {"killswitch": {"lockfile": "x"}}]
    for config in mistaken:
        with pytest.raises(ValueError, match=r"killswitch|lock file"):
            Plain(config, Exchange()).bot_start()
