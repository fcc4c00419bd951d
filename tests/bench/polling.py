"""Polling real venues: a snapshot's time relative to ccxt's own work, and fifty accounts at a tick of one second.

The venues are wire-level servers on loopback, each in its own process, so that their work is not counted.
`python -m tests.bench.polling fifty` prints how late the ticks of fifty accounts began, and the memory.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.plug_ins import make_adapter
from killswitch.graph.nodes import PolicySet
from killswitch.model.venue import AccountSpec
from killswitch.runner.assembly import LockPaths, assemble
from killswitch.runner.clock import SystemClock
from killswitch.runner.loop import Runner, RunnerPace
from killswitch.runner.process import FirstAnswers, switch_threads_often
from killswitch.store.sqlite import open_store
from killswitch_ccxt import adapter
from killswitch_ccxt.venue import CcxtVenue
from tests.bench.measure import Measure
from tests.bench.memory import fast_folder, resident
from tests.bench.replay import POLICIES, compiled
from tests.conformance.poll_costs import measure_polling
from tests.conformance.wires import WIRES
from tests.wire.server import KEY, PASSPHRASE, SECRET

POSITIONS, ORDERS = 200, 500
OWN = 1 / 0.9
"""Promised: at most a tenth of the total is ours, so that the total is at most 1/0.9 of ccxt's own time."""
ROUNDS = 15
TICKS, LATE = 60, 100.0
CREDENTIALS: Final = {"key": KEY, "secret": SECRET}


class BenchVenue(Struct, frozen=True):
    """A venue of ten of the fifty accounts."""

    wire: str
    exchange: str
    currency: str
    quote: str
    credentials: dict[str, str]


BENCH_VENUES: Final = (
    BenchVenue("bybit", "bybit", "USDT", "/USDT:USDT", CREDENTIALS),
    BenchVenue("okx", "okx", "USDT", "/USDT:USDT", {**CREDENTIALS, "passphrase": PASSPHRASE}),
    BenchVenue("bitget", "bitget", "USDT", "/USDT:USDT", {**CREDENTIALS, "passphrase": PASSPHRASE}),
    BenchVenue("mexc", "mexc", "USDT", "/USDT:USDT", CREDENTIALS),
    BenchVenue("krakenfutures", "krakenfutures", "USD", "/USD:USD", {"key": KEY, "secret": "U0VDUkVULVBMQU5URUQ="}),
)
"""Venues that count requests for an account. Binance counts them for an address: its 2,400 a minute permit only two
accounts at a tick of a second, however fast we are."""


def measures() -> Iterator[Measure]:
    """The promises about polling."""
    ours, by_ccxt, requests = asyncio.run(_snapshot_and_ccxt())
    name = f"snapshot of {POSITIONS} positions and {ORDERS} orders ({requests} requests)"
    yield Measure(name, ours * 1000, by_ccxt * 1000, "the same facts by ccxt alone", OWN)
    for venue, wired in WIRES.items():
        cost = measure_polling(wired)
        limit, share = max(cost.shares.items(), key=lambda each: each[1])
        name = f"{venue}: {cost.requests:.1f} requests a snapshot at a tick of 1 s, {limit} used"
        yield Measure(name, share, 1.0, "documented", 1.0, "of it")
    output = subprocess.run(
        [sys.executable, "-m", "tests.bench.polling", "fifty"], check=True, capture_output=True, text=True
    ).stdout
    found = json.loads(output.splitlines()[-1])
    name = f"50 accounts at 5 venues, lateness of a tick, p99 of {found['ticks']} ({found['rss']:,} MB)"
    yield Measure(name, found["p99"], LATE, "promised", 1.0)


@contextmanager
def served(wire: str, *arguments: str) -> Iterator[dict[str, str]]:
    """Run a wire-level venue in its own process; its addresses."""
    server = subprocess.Popen([sys.executable, "-m", "tests.wire", wire, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found: dict[str, str] = json.loads(server.stdout.readline())
        yield found
    finally:
        server.terminate()
        server.wait(10)


async def _snapshot_and_ccxt() -> tuple[float, float, int]:
    """Seconds of our complete snapshot, seconds of ccxt for the same data, and the number of requests."""
    symbols = [f"C{number:03}/USDT:USDT" for number in range(POSITIONS)]
    book = [f"--position={symbol}={1 + number % 7}" for number, symbol in enumerate(symbols)]
    with served("binance", *book, f"--orders={ORDERS}") as addresses:
        spec = AccountSpec(
            "main", "ccxt", "swap", "USDT", addresses["address"], {"timeout": 60}, CREDENTIALS, exchange="binanceusdm"
        )
        venue = adapter(spec)
        assert isinstance(venue, CcxtVenue)
        try:
            await venue.snapshot()
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(ROUNDS):
                for durations, request in zip(times, (_complete_snapshot(venue), _by_ccxt(venue)), strict=True):
                    gc.collect()
                    began = time.perf_counter()
                    await request
                    durations.append(time.perf_counter() - began)
            venue.reader.expire()
            health = (await venue.snapshot()).health
            assert health is not None
            return min(times[0]), min(times[1]), health.requests or 0
        finally:
            await venue.close()


async def _complete_snapshot(venue: CcxtVenue) -> None:
    """Take a snapshot of everything except the rules, without any cached part."""
    venue.reader.expire()
    seen = await venue.snapshot()
    assert (seen.quality, len(seen.positions or ()), len(seen.orders or ())) == ("ok", POSITIONS, ORDERS), seen.reason


UNIFIED: Final = (
    ("fetch_balance", ()), ("fetch_positions", ()), ("fetch_open_orders", ()),
    ("fetch_open_orders", (None, None, None, {"trigger": True})), ("fetch_ledger", ()), ("fetch_position_mode", ()),
    ("fetch_time", ()), ("fetch_tickers", ()),
)  # fmt: skip
"""ccxt's unified calls for the same data."""


async def _by_ccxt(venue: CcxtVenue) -> None:
    ccxt = venue.client.ccxt
    ccxt.options["fetchOpenOrders"]["warnWithoutSymbol"] = False
    await asyncio.gather(*(getattr(ccxt, method)(*arguments) for method, arguments in UNIFIED))


async def _fifty() -> None:
    """Ten accounts at each of five venues, a tick a second; print the result as JSON."""
    with ExitStack() as stack:
        accounts: dict[str, ArmedAccount] = {}
        for bench_venue in BENCH_VENUES:
            book = [f"--position={base}{bench_venue.quote}=5" for base in ("BTC", "ETH", "SOL", "XRP")]
            addresses = stack.enter_context(served(bench_venue.wire, *book, "--orders=20"))
            for number in range(10):
                name = f"{bench_venue.wire}-{number}"
                spec = AccountSpec(
                    name, "ccxt", "swap", bench_venue.currency, addresses["address"], {}, bench_venue.credentials,
                    exchange=bench_venue.exchange,
                )  # fmt: skip
                accounts[name] = ArmedAccount(
                    name, bench_venue.exchange, "swap", bench_venue.currency, make_adapter(spec), False, Decimal("0.5")
                )
        policies: PolicySet = compiled(POLICIES)
        with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
            store = open_store(str(Path(folder) / "bench.sqlite"))
            try:
                print(json.dumps(await _ticking(accounts, policies, store, Path(folder))))
            finally:
                store.close()


async def _ticking(accounts: dict[str, ArmedAccount], policies: PolicySet, store: Any, folder: Path) -> dict[str, Any]:
    clock, interval = SystemClock(), 1.0
    runner = assemble(
        policies, accounts, store, clock, RunnerPace(interval, 0.9), live=False, locks=LockPaths(folder / "locks",
        None),
        observers=(FirstAnswers(),),
    )  # fmt: skip
    switch_threads_often()
    lateness, qualities = [], Counter[str]()
    await runner.start()
    try:
        started = await _until_all_answer(runner, interval)
        begun = time.monotonic()
        for number in range(TICKS):
            due = begun + number * interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            lateness.append((time.monotonic() - due) * 1000)
            report = await runner.tick()
            qualities.update(
                f"{it.venue} {it.quality} {it.reason or ''}".strip()[:80] for it in report.snapshot.accounts
            )
        await runner.finish()
    finally:
        await runner.shut_down()
    lateness.sort()
    return {
        "p50": round(lateness[len(lateness) // 2], 2), "p99": round(lateness[int(len(lateness) * 0.99)], 2),
        "ticks": TICKS,
        "start": round(started, 1), "rss": resident() // 1024, "qualities": dict(qualities), "accounts": len(accounts),
        "limits": {name: len(each.adapter.traits.limits) for name, each in accounts.items() if name.endswith("-0")},
    }  # fmt: skip


async def _until_all_answer(runner: Runner, interval: float) -> float:
    """Tick until every account has been polled once, with rules loaded and connections open; the seconds."""
    begun = time.monotonic()
    for number in range(30):
        await asyncio.sleep(max(0.0, begun + number * interval - time.monotonic()))
        if all(account.quality == "ok" for account in (await runner.tick()).snapshot.accounts):
            return time.monotonic() - begun
    raise AssertionError("after 30 s some accounts still do not answer")


if __name__ == "__main__":
    if sys.argv[1:] == ["fifty"]:
        asyncio.run(_fifty())
    else:
        for measure in measures():
            print(measure.line(), flush=True)
