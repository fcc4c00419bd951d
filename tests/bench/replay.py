"""Replay of 100,000 snapshots with 8 positions through `futures-drawdown`, against orjson parsing the same file.

The recording has the form of a paper venue's: full positions, a minute apart, prices at random with a fall and a
rebound every few days, so that stages fire and reset.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import orjson

from killswitch.graph.compile import compile_policies
from killswitch.graph.nodes import PolicySet
from killswitch.lab.bars import BarTable, Series
from killswitch.lab.book import read_book
from killswitch.lab.feed import record
from killswitch.lab.recording import RecordingWriter, read, replay
from killswitch.model.decision import Decision
from killswitch.policy.loader import load
from tests.bench.measure import Measure, best_of

SNAPSHOTS, ROUNDS = 100_000, 3
SYMBOLS = ("ADA_USDT", "BCH_USDT", "BTC_USDT", "DOGE_USDT", "DOT_USDT", "ETH_USDT", "LINK_USDT", "XRP_USDT")
LARGEST = 292.0
"""Megabytes of the recording."""
MINUTE = 60_000_000
POLICIES = Path(__file__).resolve().parents[2] / "policies" / "futures-drawdown"


def measures() -> Iterator[Measure]:
    """The promises: at most four times, and a recording no larger than promised."""
    policies = compiled(POLICIES)
    with tempfile.TemporaryDirectory() as folder:
        path = recording(Path(folder))
        count = sum(isinstance(each, Decision) for each in replay(policies, read(path)))
        if not count:
            raise AssertionError("nothing fires in the recording: the replay would prove too little")
        ours, reference = best_of(ROUNDS, lambda: _consume(policies, path), lambda: _parse(path))
        size = path.stat().st_size / 1e6
    name = f"replay of {SNAPSHOTS:,} snapshots ({size:.0f} MB, {count} decisions)"
    yield Measure(name, ours, reference, "orjson parsing", 4.0, "s")
    yield Measure(f"recording of {SNAPSHOTS:,} snapshots", size, LARGEST, "promised", 1.0, "MB")


def compiled(folder: Path) -> PolicySet:
    """The policies in `folder`; AssertionError with the problems if they do not compile."""
    loaded = load([folder])
    policies, problems = compile_policies(loaded.documents)
    errors = [each for each in (*loaded.diagnostics, *problems) if each.severity == "error"]
    if policies is None or errors:
        raise AssertionError(errors)
    return policies


def recording(folder: Path) -> Path:
    """Generate the recording from a seed; its path."""
    random = Random(20210519)
    opened = [1_600_000_000_000_000 + minute * MINUTE for minute in range(SNAPSHOTS)]
    bars = BarTable("bench", [_series(symbol, opened, random) for symbol in SYMBOLS])
    positions = [
        {"symbol": symbol, "side": "short" if place % 2 else "long", "notional": 37_500, "leverage": 5}
        for place, symbol in enumerate(SYMBOLS)
    ]
    account = {"account": "main", "market": "swap", "currency": "USDT", "equity": 100_000, "positions": positions}
    book = folder / "book.yaml"
    book.write_text(json.dumps({"name": "bench", "accounts": [account]}), encoding="utf-8")
    path = folder / "recording.jsonl"
    with RecordingWriter(path) as writer:
        for snapshot in record(bars, read_book(book)):
            writer.write(snapshot)
    return path


def _series(symbol: str, opened: list[int], random: Random) -> Series:
    """Closes that walk back to 100, falling by a tenth within ten minutes now and then; no spread inside a bar."""
    price, falling, closes = 100.0, 0, []
    for _ in opened:
        falling = 10 if random.random() < 1 / 4000 else max(0, falling - 1)
        price *= 1 + random.gauss(0, 0.0006) + (100 - price) * 5e-6 - (0.01 if falling else 0)
        closes.append(round(price, 3))
    return Series(symbol, opened, closes, closes, closes, closes, [1e6] * len(closes))


def _consume(policies: PolicySet, path: Path) -> None:
    for _ in replay(policies, read(path)):
        pass


def _parse(path: Path) -> None:
    with path.open("rb") as file:
        for line in file:
            orjson.loads(line)
