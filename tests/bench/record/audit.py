"""The record: what a line adds to the commit of a journal entry, a million lines verified, and the size of a proof.

The commit is compared with one of the same store that writes no line, entry by entry in turn, so that both see the same
disk. Both hold their lease, which each commit of a run checks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

from sqlalchemy import Connection

from killswitch.model.instant import HOUR, to_micros
from killswitch.model.record_entry import RecordEntry
from killswitch.model.store import JournalEntry
from killswitch.record.line import FORMAT, NO_LEAF, make_line
from killswitch.record.tree import Proof, encode_proof
from killswitch.record.verification import RecordVerifier
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests.bench.measure import Measure

NOW = datetime(2026, 3, 2, tzinfo=UTC)
APPENDS, MILLION = 2_000, 1_000_000


class Unrecorded(SqlStore):
    """A store that writes its journal and no record."""

    def _record(self, connection: Connection, entries: Sequence[RecordEntry], late: str | None = None) -> None:
        pass


def row(number: int) -> JournalEntry:
    data: dict[str, str | None] = {
        "side": "sell", "amount": "0.25", "position": "1.5", "order": "limit_ioc", "price": "60123.5", "mark": "60120",
    }  # fmt: skip
    name = f"ks-{number}"
    return JournalEntry("0123456789abcdefghij", "sending", NOW, "main", "BTC/USDT:USDT", "long", name, 1, data)


def lines() -> Iterator[bytes]:
    """A million lines as a close writes them."""
    leaf = NO_LEAF
    for number in range(1, MILLION + 1):
        fields = {"entry": "sending", "account": "main", "symbol": "BTC/USDT:USDT", "client_order_id": f"ks-{number}"}
        entry = RecordEntry("order", NOW, {**fields}, {"amount": "0.25", "price": "60123.5", "side": "sell"})
        if number == 1:
            entry = RecordEntry("chain", NOW, {"chain": "0" * 32, "format": FORMAT})
        line = make_line(entry, number, leaf, bytes)
        leaf = line.leaf
        yield line.text + b"\n"


def appends(folder: Path) -> Measure:
    """The median commit of one journal entry with its line and without."""
    with_line, without = open_store(str(folder / "a.sqlite")), open_store(str(folder / "b.sqlite"))
    without.__class__ = Unrecorded
    for store in (with_line, without):
        store.fence(store.acquire("run", to_micros(NOW), HOUR).generation)
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for number in range(APPENDS):
        for which, store in enumerate((with_line, without)):
            began = perf_counter()
            store.append(row(number))
            seconds[which].append(perf_counter() - began)
    with_line.close()
    without.close()
    ours, reference = (median(each[APPENDS // 10 :]) * 1000 for each in seconds.values())
    return Measure("a journal entry with its line", ours, reference, "the journal alone", 1.2)


def measures() -> Iterator[Measure]:
    """Append, verification, proof."""
    with TemporaryDirectory() as folder:
        yield appends(Path(folder))
        log = Path(folder) / "a.jsonl"
        with log.open("wb") as file:
            file.writelines(lines())
        verifier = RecordVerifier()
        began, worked = perf_counter(), process_time()
        with log.open("rb") as file:
            verifier.read("a", file)
        report = verifier.report()
        took, worked = perf_counter() - began, process_time() - worked
        assert (report.verdict, report.entries) == ("verified", MILLION)
        yield Measure("a million lines verified", took * 1000, 5_000.0, "promised", 1.0)
        yield Measure("processor time of the same, on one thread", worked * 1000, 5_000.0, "promised", 1.0)
        with log.open("rb") as file:
            line = [next(file) for _ in range(7)][-1].rstrip(b"\n")
    path = [os.urandom(32) for _ in range(20)]
    size = len(encode_proof(Proof.of("0" * 32, line, MILLION, path)))
    yield Measure("a proof for one of a million", float(size), 2_048.0, "promised", 1.0, "bytes")
