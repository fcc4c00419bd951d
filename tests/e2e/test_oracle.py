"""Every decision of `futures-drawdown` equals that of an independent, naive oracle (`tests/oracle/naive.py`)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from killswitch.graph.compile import compile_policies
from killswitch.graph.nodes import PolicySet
from killswitch.lab.bars import read_market
from killswitch.lab.book import read_book
from killswitch.lab.feed import record
from killswitch.lab.recording import RecordingWriter, read
from killswitch.model.decision import Decision
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Snapshot, decode_snapshot
from killswitch.model.store import HistoryRow, MachineState
from killswitch.planning.interpreter import Interpreter
from killswitch.policy.loader import load
from tests.conftest import REPOSITORY
from tests.oracle.naive import TIGHT, LevelChange, OutsideDomainError, level_changes
from tests.oracle.naive import read as naive
from tests.oracle.strategies import recordings
from tests.oracle.walks import Walk
from tests.rotation import taking_turns


@pytest.fixture(scope="module")
def policies() -> PolicySet:
    """The shipped `futures-drawdown`, compiled."""
    loaded = load([REPOSITORY / "policies" / "futures-drawdown"])
    compiled, problems = compile_policies(loaded.documents)
    assert compiled is not None, [*loaded.diagnostics, *problems]
    return compiled


@pytest.fixture(scope="module")
def tight() -> PolicySet:
    """Its variant `tight`, selected for this compilation."""
    loaded = load([REPOSITORY / "policies" / "futures-drawdown"])
    compiled, problems = compile_policies(loaded.documents, variant="tight")
    assert compiled is not None, [*loaded.diagnostics, *problems]
    return compiled


def decided(policies: PolicySet, snapshots: Iterable[Snapshot]) -> list[LevelChange]:
    """The product's decisions, in the oracle's terms."""
    interpreter = Interpreter(policies)
    return [each for snapshot in snapshots for each in in_oracle_terms(interpreter.tick(snapshot).decisions)]


def in_oracle_terms(decisions: Iterable[Decision]) -> list[LevelChange]:
    """Time, account, level and reset flag of each decision."""
    return [
        LevelChange(each.as_of, each.scope.removeprefix("account/"), each.level, reset=each.kind == "reset")
        for each in decisions
    ]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(lines=recordings())
def test_the_product_and_the_oracle_agree_on_generated_recordings(
    policies: PolicySet, lines: list[dict[str, Any]]
) -> None:
    """Falls, calm, outages, silence, deposits, withdrawals and operator commands: the same levels at the same times."""
    try:
        expected = level_changes(lines)
    except OutsideDomainError:
        assume(False)
    assert decided(policies, (decode_snapshot(json.dumps(line)) for line in lines)) == expected


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(lines=recordings())
def test_the_tight_variant_and_the_oracle_agree(tight: PolicySet, lines: list[dict[str, Any]]) -> None:
    """A variant changes the thresholds and nothing else about the policy."""
    try:
        expected = level_changes(lines, TIGHT)
    except OutsideDomainError:
        assume(False)
    assert decided(tight, (decode_snapshot(json.dumps(line)) for line in lines)) == expected


class KeptState:
    """The state that a store keeps between two runs of the product."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, str], MachineState] = {}
        self.rows: list[HistoryRow] = []

    def keep(self, interpreter: Interpreter, snapshot: Snapshot) -> None:
        self.states |= {(state.policy, state.scope): state for state in interpreter.states()}
        since = interpreter.keep_since(to_micros(snapshot.as_of))
        self.rows = [row for row in (*self.rows, *interpreter.rows()) if row.at >= since]

    def since(self, policy: str, scope: str, since: int) -> list[HistoryRow]:
        return [row for row in self.rows if (row.policy, row.scope) == (policy, scope) and row.at >= since]


def decided_with_restarts(policies: PolicySet, snapshots: list[Snapshot], restarts: set[int]) -> list[LevelChange]:
    """As `decided`, with a process that dies before each snapshot whose number is in `restarts`."""
    kept, interpreter = KeptState(), Interpreter(policies)
    found: list[LevelChange] = []
    for number, snapshot in enumerate(snapshots):
        if number in restarts:
            interpreter = Interpreter(policies)
            interpreter.restore(kept.states.values(), kept.since)
        found += in_oracle_terms(interpreter.tick(snapshot).decisions)
        kept.keep(interpreter, snapshot)
    return found


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(lines=recordings(), restarts=st.sets(st.integers(1, 200), max_size=6))
def test_d7_a_restart_in_the_middle_of_a_crash_changes_no_decision(
    policies: PolicySet, lines: list[dict[str, Any]], restarts: set[int]
) -> None:
    """Killed and restarted before any snapshots, the product decides what the oracle decides."""
    try:
        expected = level_changes(lines)
    except OutsideDomainError:
        assume(False)
    snapshots = [decode_snapshot(json.dumps(line)) for line in lines]
    assert decided_with_restarts(policies, snapshots, restarts) == expected


# Every folder of real bars, with generated books: all long, all short, and half against half, both ways round.
FOLDERS = (
    "2020-03-12_binance-spot_5m",
    "2021-05-19_binance-spot_1m",
    "2022-05-11_okx-swap_5m",
    "2022-11-08_okx-swap_5m",
    "2023-08-17_binance-spot_3m",
    "2024-08-05_binance-spot_5m",
)
SHAPES = ("long", "short", "halves", "halves-turned")
MINUTES, CALM = "2021-05-19_binance-spot_1m", ("calm-2025-05_binance-swap_1m", "calm-2025-05")
GIVEN = ((MINUTES, "hedged-2021-05-19"), CALM)
"""The third, `short-2021-05-19`, is the book of the `ksctl replay` test, over all bars as this hedged one is."""
EVERY_FIFTH = 5
"""Snapshots are taken of every fifth bar of the calm minutes: the bars are too many for all of them."""
GENERATED = [case for folder in FOLDERS for case in taking_turns(SHAPES, "oracle over real bars", folder)]
"""Shape of the book, and folder: each folder has one book in `make test`, and the others in `make test-venues`."""


def generated_book(folder: Path, shape: str, symbols: tuple[str, ...]) -> Path:
    """A book file over all `symbols`: one-sided at gross 2, halves at gross 3 (a single symbol at gross 2)."""
    half = len(symbols) // 2 if shape.startswith("halves") else 0
    gross = 300_000 if half else 200_000
    sides = {"long": ("long", "long"), "short": ("short", "short"), "halves": ("long", "short")}
    first, second = sides.get(shape, ("short", "long"))
    book = {
        "name": shape,
        "accounts": [
            {
                "account": "main",
                "market": "swap",
                "currency": "USDT",
                "equity": 100_000,
                "positions": [
                    {
                        "symbol": symbol,
                        "side": first if place < half else second,
                        "notional": gross // len(symbols),
                        "leverage": 5,
                    }
                    for place, symbol in enumerate(symbols)
                ],
            }
        ],
    }
    path = folder / f"{shape}.yaml"
    path.write_text(json.dumps(book), encoding="utf-8")  # JSON is YAML
    return path


def record_to(path: Path, market: Path, book: Path, every: int = 1) -> Path:
    """Write the recording of `book` over `market` to `path`. `every`: bars per snapshot."""
    with RecordingWriter(path) as writer:
        for snapshot in islice(record(read_market(market), read_book(book)), None, None, every):
            writer.write(snapshot)
    return path


@pytest.mark.parametrize(("shape", "folder"), GENERATED)
def test_every_decision_over_real_bars_is_the_oracles(
    policies: PolicySet, shared: Path, tmp_path: Path, shape: str, folder: str
) -> None:
    """Time and level of each decision, and each reset, agree through every crash, whatever the book."""
    market = shared / "data" / "market" / folder
    book = generated_book(tmp_path, shape, read_market(market).symbols)
    path = record_to(tmp_path / "recording.jsonl", market, book)
    assert decided(policies, read(path)) == naive(path)


@pytest.mark.parametrize(("folder", "book"), GIVEN)
def test_every_decision_on_the_given_books_is_the_oracles(
    policies: PolicySet, shared: Path, tmp_path: Path, folder: str, book: str
) -> None:
    """The books supplied with the bars: the calm one, on every fifth bar, fires nothing; the hedged one fires."""
    market, given_book = shared / "data" / "market" / folder, shared / "data" / "books" / f"{book}.yaml"
    path = record_to(tmp_path / "recording.jsonl", market, given_book, EVERY_FIFTH if (folder, book) == CALM else 1)
    expected = naive(path)
    assert decided(policies, read(path)) == expected
    assert bool(expected) == (book != "calm-2025-05")


@pytest.mark.parametrize(("to", "level"), [("95500", 1), ("93000", 2), ("90000", 3)])
@pytest.mark.parametrize("scale", [1, Decimal("0.01"), 1000])
def test_a_fall_of_exactly_the_threshold_reaches_it(
    policies: PolicySet, to: str, level: int, scale: Decimal | int
) -> None:
    """A book that falls by exactly 4.5%, 7% or 10% within a quarter of an hour is at that level."""
    walk = Walk(cash=Decimal(100_000) * scale, size=scale).see()
    for _ in range(60):
        walk.wait(60).see()
    walk.equity_to(Decimal(to) * scale)
    for _ in range(3):
        walk.wait(60).see()
    expected = level_changes(walk.snapshots)
    assert [each.level for each in expected] == [level]
    assert decided(policies, (decode_snapshot(json.dumps(line)) for line in walk.snapshots)) == expected


def test_ksctl_replay_prints_the_decisions_of_the_oracle(shared: Path, tmp_path: Path) -> None:
    """One JSON object a line, with the times, levels and resets of the oracle."""
    data, folder = shared / "data", "2021-05-19_binance-spot_1m"
    path = record_to(
        tmp_path / "recording.jsonl.gz", data / "market" / folder, data / "books" / "short-2021-05-19.yaml"
    )
    ksctl = [str(Path(sys.executable).parent / "ksctl"), "replay", "--output", "json"]
    policies = str(REPOSITORY / "policies" / "futures-drawdown")
    replayed = subprocess.run(
        [*ksctl, "--policies", policies, "--snapshots", str(path)], check=True, capture_output=True, text=True
    )
    records = [json.loads(line) for line in replayed.stdout.splitlines()]
    assert {record["format"] for record in records} == {"killswitch.decision/v1"}
    assert [
        LevelChange(datetime.fromisoformat(each["as_of"]), "main", each["level"], reset=each.get("kind") == "reset")
        for each in records
    ] == naive(path)


def test_d2_a_debt_that_grows_after_the_wipe_out_is_new_loss(policies: PolicySet) -> None:
    """Level 3 fires at −1,000, and again below that after its cooldown: the unit value is lower still."""
    walk = Walk(leverage=3).see().wait(60).equity_to(Decimal(-1_000)).see()
    for _ in range(6 * 12):
        walk.wait(300).equity_to(Decimal(-2_000)).see()
    expected = level_changes(walk.snapshots)
    assert [(each.level, each.reset) for each in expected] == [(3, False), (3, False)]
    assert decided(policies, (decode_snapshot(json.dumps(line)) for line in walk.snapshots)) == expected


@given(begin=st.integers(1_000_00, 9_999_999_99), fall=st.sampled_from(("0.045", "0.07", "0.1")))
def test_a_fall_of_exactly_the_threshold_reaches_it_to_the_cent(policies: PolicySet, begin: int, fall: str) -> None:
    """For any start equity in cents: what is 7% in exact arithmetic is 7%, not 6.999…%."""
    start = Decimal(begin) / 100
    walk = Walk(cash=start, size=Decimal("0.01")).see()
    for _ in range(60):
        walk.wait(60).see()
    walk.equity_to(start * (1 - Decimal(fall)))
    for _ in range(3):
        walk.wait(60).see()
    expected = level_changes(walk.snapshots)
    assert len(expected) == 1
    assert decided(policies, (decode_snapshot(json.dumps(line)) for line in walk.snapshots)) == expected


@given(slide=st.integers(125, 155), share=st.integers(-90, 300).filter(bool))
def test_d3_money_moved_after_the_cooldown_is_no_new_loss(policies: PolicySet, slide: int, share: int) -> None:
    """After a fired stage's cooldown, with its trigger held over an outage, a deposit or withdrawal fires nothing."""
    walk = Walk().see()
    for minute in range(1, 7_000 // slide + 2):
        walk.wait(60).equity_to(Decimal(100_000 - slide * minute)).see()
    walk.wait(60).see().wait(60).see()
    for _ in range(40):
        walk.wait(60).see("down")
    walk.flow((walk.equity * share / 100).quantize(Decimal("0.01"))).wait(1).see()
    expected = level_changes(walk.snapshots)
    assert [each.level for each in expected] == [1]
    assert expected[0].at < walk.at - timedelta(minutes=30)
    assert decided(policies, (decode_snapshot(json.dumps(line)) for line in walk.snapshots)) == expected
