"""freqtrade as installed: with real orders against a venue on loopback, on futures and on spot, and in a dry run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bots.desk import allowing_gate, blocks, filled_in, until
from tests.bots.freqtrade_desk import (
    BTC,
    COINS,
    ETH,
    PAIRS,
    SHOWN_LOCK,
    SOL,
    SPOT,
    XRP,
    Desk,
    desk,
    market_options,
    trading,
)
from tests.bots.served import served_account

pytestmark = pytest.mark.bots


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


def test_on_spot_no_road_of_freqtrade_buys_while_locked_and_sales_pass(tmp_path: Path) -> None:
    """Real orders at a venue without reduce-only: buys, additions, resting ones and /forceenter stop; sales do not."""
    btc, eth, sol, xrp = COINS
    with desk(tmp_path, SPOT, enter=dict.fromkeys((btc, eth, sol), "long"), price={eth: 50}) as bot:
        until(lambda: bot.is_held(btc) and bot.is_held(sol), "the bot holds BTC and SOL")
        until(lambda: len(bot.entries()) == 3 and rests_as_entry(bot), "an entry of ETH rests")
        bot.lock.lock()
        until(lambda: not rests_as_entry(bot), "the resting entry is cancelled")
        before = bot.entries()
        bot.wish(enter={xrp: "long", eth: "long"}, price={}, reprice={eth: 51}, add={btc: 100})
        asked = bot.calls("adjust_trade_position")
        bot.require_refused(xrp, "the lock file says reduce_only")
        assert bot.ask("forceenter", pair=btc, side="long") != 200
        bot.loop()
        assert bot.entries() == before, "nothing that may open has reached the venue"
        assert bot.calls("adjust_trade_position") > asked, "the addition was wished"
        bot.wish(add={btc: -100}, exit=[sol])
        until(lambda: not bot.is_held(sol), "SOL is sold")
        until(lambda: (btc, "sell", False) in bot.sent(), "a part of BTC is sold")
        assert bot.entries() == before


def test_on_spot_by_the_gate_entries_stop_and_sales_pass(tmp_path: Path) -> None:
    """Real orders, and a real run with its server: a sale for the account's cash is bounded, and needs no proof."""
    btc, eth, sol, xrp = COINS
    options = ("--equity=1000", *market_options(SPOT))
    with served_account(tmp_path, *options, access=SPOT, watch=COINS) as account, account.running_apart():
        shown = {SHOWN_LOCK: json.dumps(str(account.lock_file)), "http://127.0.0.1:8600": account.gate}
        section = json.loads(filled_in(blocks("freqtrade.md", "json")[1], shown))
        bot = Desk(tmp_path, account.world)
        with trading(bot, section, token=account.token, enter={btc: "long", eth: "long"}):
            until(lambda: bot.is_held(btc) and bot.is_held(eth), "the gate has warmed up, and allows entries")
            bot.require_refused(sol, "an order of 400.00 USDT is above the limit of 300.00 USDT", stakeamount=400)
            account.lose_gate()
            bot.require_refused(sol, "the gate gives no verdict")
            account.require_open()
            bot.wish(enter={}, exit=[btc])
            until(lambda: not bot.is_held(btc), "BTC is sold without the gate")
            account.bring_gate()
            account.world.move("price", symbol=eth, price="70")  # 60 USDT of 1000 are lost
            until(lambda: account.mode() == "reduce_only", "the stage has locked trading")
            entered = bot.entries()
            bot.require_refused(xrp, "the lock file says reduce_only")
            bot.wish(exit=[eth])
            until(lambda: not bot.is_held(eth), "ETH is sold under the lock")
            assert bot.entries() == entered


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
