"""Two strategies of one account over the wire: one is watched and closed, the other is left alone.

Once at the paper venue, and once at an exchange of ccxt, whose HTTP API is served on loopback.
"""

from __future__ import annotations

import asyncio
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Literal

from killswitch.model.snapshot import OrderSide, Side
from killswitch.model.venue import AccountSpec, OrderRequest
from killswitch_paper import adapter
from tests.e2e.processes import Site, ksctl, paper, terminate, until
from tests.e2e.wire_venues import VENUES, World, has_polled, wire
from tests.e2e.wire_venues import Site as WireSite

POLICY = """
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: grid-size}
spec:
  mode: enforce
  scope: {each: strategy, strategy: grid, match: {currency: USDT}}
  max_gap: 10m
  triggers:
    size: {signal: exposure.gross, above: 1 USDT, on_unknown: hold}
  stages:
    - name: close-grid
      level: 1
      any: [size]
      cooldown: 6h
      reset: manual
      actions:
        - lock_trading: {mode: reduce_only}
        - cancel_orders: {kind: all}
        - close: {side: both, fraction: 100%}
---
apiVersion: killswitch.dev/v1
kind: Strategy
metadata: {name: grid}
spec: {match: {account: main}, order_ids: grid-}
---
apiVersion: killswitch.dev/v1
kind: Strategy
metadata: {name: trend}
spec: {match: {account: main}, order_ids: trend-}
"""
SYMBOL = "BTC_USDT"


HELD_BY_TREND = {f"{SYMBOL} long": Decimal("0.06")}
EMPTY = "name: empty\naccounts: [{account: main, market: swap, currency: USDT, equity: 100000, positions: []}]\n"


def trade(site: Site, client: str, side: OrderSide, contracts: str, price: str | None = None) -> None:
    """An order of a bot, straight to the venue."""

    async def submit() -> None:
        venue = adapter(AccountSpec("main", "paper", "swap", "USDT", site.address, {}, {}))
        of: Side = "long" if side == "buy" else "short"
        limit = None if price is None else Decimal(price)
        kind: Literal["market", "limit"] = "market" if price is None else "limit"
        try:
            await venue.submit(OrderRequest(client, SYMBOL, side, of, Decimal(contracts), False, kind, limit))
        finally:
            await venue.close()

    asyncio.run(submit())


def held(site: Site) -> dict[str, Decimal]:
    """Symbol and side → contracts, by the venue itself."""
    return {f"{each.symbol} {each.side}": each.contracts for each in site.venue().positions or ()}


def test_only_the_watched_one_of_two_strategies_in_a_position_is_closed(tmp_path: Path) -> None:
    """Both are long of the same symbol in one net position; 0.04 of 0.10 are closed, and orders of the other stay.

    D9: the switch of one bot does not act on the other's trades, and fires once.
    """
    (tmp_path / "book.yaml").write_text(EMPTY, encoding="utf-8")
    with paper("--crash", "7", "--speed", "60", "--book", str(tmp_path / "book.yaml")) as address:
        site = Site(tmp_path, address, policy=POLICY)
        with site.running("--live", "--output", "json") as runner:
            trade(site, "trend-1", "buy", "0.06")
            until(lambda: held(site) == HELD_BY_TREND, "the other strategy holds its part")
            trade(site, "trend-2", "buy", "0.01", "20000")
            assert site.decisions() == []
            trade(site, "grid-2", "buy", "0.01", "20000")
            trade(site, "grid-1", "buy", "0.04")
            until(lambda: site.decisions() and held(site) == HELD_BY_TREND, "0.04 of 0.10 are closed")
            until(lambda: "flat" in [each.status for each in site.status().view.closings], "the close ends")  # type: ignore[union-attr] # it has ticked
            status, out, err = terminate(runner)
        assert status == 0, err
        (line,) = out.splitlines()
        made = json.loads(line)
        assert (made["scope"], made["stage"]) == ("strategy/grid", "close-grid")
        ((parts, left),) = {(json.dumps(it["parts"]), it["target"]) for it in made["intents"]}
        assert (json.loads(parts), left) == ([{"strategy": "grid", "contracts": "0.04"}], "0.06")
        after = site.venue()
        assert [order.client_order_id for order in after.orders or ()] == ["trend-2"]
        assert held(site) == HELD_BY_TREND
        own = json.loads((site.locks / "strategy__grid.json").read_text(encoding="utf-8"))
        account = json.loads((site.locks / "account__main.json").read_text(encoding="utf-8"))
        assert (own["locked"], own["mode"], account["locked"]) == (True, "reduce_only", False)


CALM = POLICY.replace("above: 1 USDT", "above: 900000 USDT")


def test_a_strategy_is_closed_by_hand_with_its_lock_and_reset_and_the_other_trades_on(tmp_path: Path) -> None:
    """`close`, `status`, `lock`, `unlock` and `reset` name the strategy; 0.04 of 0.10 are closed, never the other's."""
    (tmp_path / "book.yaml").write_text(EMPTY, encoding="utf-8")
    with paper("--crash", "7", "--speed", "60", "--book", str(tmp_path / "book.yaml")) as address:
        site = Site(tmp_path, address, policy=CALM)
        store = ("--store", str(site.store))
        by_hand = ("--scope", "strategy/grid", "--reason", "operator: test")
        with site.running("--live") as runner:
            trade(site, "trend-1", "buy", "0.06")
            trade(site, "grid-1", "buy", "0.04")
            until(lambda: held(site) == {f"{SYMBOL} long": Decimal("0.10")}, "both hold their parts")
            closed = ksctl("close", *by_hand, *store)
            assert closed.returncode == 0, closed.stdout + closed.stderr
            assert held(site) == HELD_BY_TREND
            assert "strategy/grid is locked (reduce_only) until `ksctl unlock strategy/grid" in closed.stdout
            status = ksctl("status", "--scope", "strategy/grid", *store)
            assert status.returncode == 0, status.stderr
            assert "strategy/grid" in status.stdout
            wrong = ksctl("close", "--scope", "strategy/gird", "--reason", "operator: test", *store)
            assert "did you mean strategy/grid?" in wrong.stderr
            place = ("strategy/grid", "--side", "long", "--symbol", SYMBOL, "--until", "08:00 Europe/Berlin")
            part = ksctl("lock", *place, "--reason", "seen", *store)
            assert part.returncode == 0, part.stderr
            assert f"long in {SYMBOL} of strategy/grid is locked (reduce_only) until 20" in part.stdout
            several = ksctl("unlock", "strategy/grid", "--reason", "repaired", *store)
            assert (several.returncode, "several things hold it" in several.stderr) == (1, True), several.stderr
            ids = re.findall(r"--id ([0-9a-f]+)", several.stderr)
            named = [each for id_ in ids for each in ("--id", id_)]
            unlocked = ksctl("unlock", "strategy/grid", *named, "--reason", "repaired", *store)
            assert (unlocked.returncode, len(ids)) == (0, 2), unlocked.stderr
            reset = ksctl("reset", "strategy/grid", "--reason", "seen", *store)
            assert reset.returncode == 0, reset.stdout + reset.stderr
            trade(site, "grid-2", "buy", "0.03")
            until(lambda: held(site) == {f"{SYMBOL} long": Decimal("0.09")}, "it trades on")
            until(lambda: ksctl("status", *store).returncode == 0, "a tick has seen it")
            plan = tmp_path / "close.json"
            dry = ksctl("close", *by_hand, "--no-lock", "--dry-run", "--out", str(plan), *store)
            assert "sell" in dry.stdout, dry.stdout + dry.stderr
            applied = ksctl("apply", str(plan), *store)
            assert applied.returncode == 0, applied.stdout + applied.stderr
            assert held(site) == HELD_BY_TREND
            assert terminate(runner)[0] == 0
        own = json.loads((site.locks / "strategy__grid.json").read_text(encoding="utf-8"))
        account = json.loads((site.locks / "account__main.json").read_text(encoding="utf-8"))
        assert (own["locked"], account["locked"]) == (False, False)


BREACH = POLICY.replace(
    "      reset: manual\n",
    "      reset: manual\n      on_breach: close\n      breach: {ceiling: 50%, cost_per_hour: 5%, pause: 1s}\n",
)


def test_what_a_locked_strategy_opens_again_is_closed_and_the_other_trades_on(tmp_path: Path) -> None:
    """Its bot does not read the lock and buys 0.02 again; the other buys 0.01 meanwhile, which nobody closes."""
    (tmp_path / "book.yaml").write_text(EMPTY, encoding="utf-8")
    with paper("--crash", "7", "--speed", "60", "--book", str(tmp_path / "book.yaml")) as address:
        site = Site(tmp_path, address, policy=BREACH)
        with site.running("--live") as runner:
            trade(site, "trend-1", "buy", "0.06")
            trade(site, "grid-1", "buy", "0.04")
            until(lambda: site.decisions() and held(site) == HELD_BY_TREND, "the stage closes its part")
            until(lambda: "flat" in [each.status for each in site.status().view.closings], "the close ends")  # type: ignore[union-attr] # it has ticked
            trade(site, "trend-2", "buy", "0.01")
            trade(site, "grid-2", "buy", "0.02")
            until(lambda: len(site.decisions()) > 1, "the breach is answered")
            until(lambda: held(site) == {f"{SYMBOL} long": Decimal("0.07")}, "its 0.02 are closed")
            assert terminate(runner)[0] == 0
        breach, *others = site.decisions()
        assert [each.stage for each in others] == ["close-grid"]
        assert (breach.kind, breach.scope) == ("breach", "strategy/grid")
        parts = {(part.strategy, part.contracts) for intent in breach.intents for part in intent.parts}
        assert parts == {("grid", Decimal("0.02"))}


def test_only_the_part_of_the_fired_strategy_is_closed_at_an_exchange(tmp_path: Path) -> None:
    """Bybit states whose order a fill is of: 4 of 10 contracts are sold, reduce-only, in one order.

    The resting order of the other strategy stays, and that of the fired one is cancelled.
    """
    access = VENUES["bybit"]
    symbol = access.symbols[0]
    with wire("bybit", f"--symbol={symbol}") as addresses:
        world = World(access, **addresses)
        site = WireSite(tmp_path / "site", world, POLICY)
        with site.running("--interval", "1s") as runner:
            until(lambda: has_polled(site.store), "the runner has polled")
            bot(world, "trend-1", "6")
            bot(world, "trend-2", "1", price="50")
            until(lambda: seen_of(site) == "6", "the runner has seen the other strategy's position")
            assert world.state()["sent"] == []
            bot(world, "grid-2", "1", price="51")
            bot(world, "grid-1", "4")
            until(lambda: world.held() == {f"{symbol} long": "6"}, "4 of 10 are closed")
            until(lambda: world.state()["rests"] == ["trend-2"], "the order of the fired strategy is cancelled")
            until(lambda: statuses(site) == ["flat"], "the close ends")
            assert runner.terminate() == 0, runner.stderr
        state = world.state()
        assert state["sent"] == [[symbol, "sell", "4", True]]
        assert (world.held(), state["rests"], state["turned"], state["unspoken"]) == (
            {f"{symbol} long": "6"}, ["trend-2"], [], [],
        )  # fmt: skip
        locks = tmp_path / "site" / "locks"
        own = json.loads((locks / "strategy__grid.json").read_text(encoding="utf-8"))
        account = json.loads((locks / "account__main.json").read_text(encoding="utf-8"))
        assert (own["locked"], own["mode"], account["locked"]) == (True, "reduce_only", False)


def bot(world: World, client: str, amount: str, **more: str) -> None:
    """An order of a bot, by its name."""
    world.move("order", symbol=world.access.symbols[0], side="buy", amount=amount, name=client, **more)


def seen_of(site: WireSite) -> str | None:
    """The contracts of the only position in the newest recorded snapshot."""
    seen = site.snapshots()
    positions = seen[-1]["accounts"][0].get("positions") if seen else None
    return positions[0]["contracts"] if positions else None


def statuses(site: WireSite) -> list[str]:
    """How far each close is, by the status of the store."""
    view = site.view()
    return [] if view is None else [each.status for each in view.closings]
