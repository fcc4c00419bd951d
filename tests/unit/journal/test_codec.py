"""Journal rows and their typed entries: stored rows do not change, and an undecodable one stops nothing."""

from __future__ import annotations

import ast
import gzip
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.journal import entries as records
from killswitch.journal.codec import decode, encode
from killswitch.journal.entries import (
    Entry,
    Filled,
    Finished,
    OrderSending,
    PlannedWork,
    Undecodable,
    Unreadable,
    Verified,
)
from killswitch.model.instant import from_micros, to_micros
from killswitch.model.store import JournalEntry, JournalKind
from killswitch.store import rows
from killswitch.store.sqlite import open_store
from killswitch.store.statements import JOURNAL_COLUMNS

AT = datetime(2026, 3, 4, 5, 6, 7, 123456, tzinfo=UTC)
D = Decimal


def row(kind: str, **data: str | None) -> JournalEntry:
    return JournalEntry("d1", kind, AT, "main", "BTC", "long", "o1", 1, data)


def recorded_rows(repository: Path) -> Iterator[dict[str, Any]]:
    """Every journal row of the recorded stores, as its columns."""
    for path in sorted((repository / "tests/baselines/recorded").glob("*.store.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                found = json.loads(line)
                if found.get("table") == "journal":
                    yield found["row"]


def test_every_recorded_row_round_trips_to_the_byte(repository: Path) -> None:
    """Rows that an earlier version has written: this one reads all of them, and would write the same."""
    kinds = set()
    for columns in recorded_rows(repository):
        given_row = {**columns, "at": from_micros(columns["at"]), "data": json.loads(columns["data"])}
        entry = decode(JournalEntry(**given_row))
        assert not isinstance(entry, Undecodable), columns
        kinds.add(columns["kind"])
        written = dict(zip(JOURNAL_COLUMNS, rows.journal_row(encode(entry)), strict=True))
        assert {**written, "sequence": columns["sequence"]} == columns
    # Fees that are told late, orders that never arrived and restores are in no recorded store.
    assert kinds == set(get_args(JournalKind)) - {"charged", "absent", "restored"}


numbers = st.none() | st.decimals(allow_nan=False, allow_infinity=False) | st.just(Unreadable("much"))
texts = st.none() | st.text(max_size=8)
wholes = st.none() | st.integers(0, 99) | st.just(Unreadable("-"))
instants = st.none() | st.datetimes(timezones=st.just(UTC)) | st.just(Unreadable("soon"))
keys = st.tuples(st.sampled_from(["BTC", "A B/C:D", ""]), st.sampled_from(["long", "short"]))
of_an_account = {
    "status": texts,
    "reason": texts,
    "cost": numbers,
    "delay": numbers,
    "left": st.dictionaries(keys, numbers),
}
LAYOUTS: list[tuple[type[Any], dict[str, st.SearchStrategy[Any]]]] = [
    (records.PlannedWork, dict.fromkeys(("contracts", "target", "mark", "value"), numbers)),
    (records.PlannedWork, {"lock": st.builds(records.OrderedLock, mode=texts, scope=texts, until=instants)}),
    (
        records.OrderSending,
        {"side": texts, "order": texts, "rung": wholes, "after": texts}
        | dict.fromkeys(("amount", "position", "price", "mark", "value", "valid_for"), numbers),
    ),
    (records.Acknowledged, {"order": texts, "filled": numbers}),
    (records.Unknown, {"reason": texts, "text": texts, "state": texts}),
    (records.Rejected, {"reason": texts, "text": texts, "order": texts}),
    (records.Absent, {"text": texts, "early": st.booleans()}),
    (records.Filled, {"order": texts, "state": texts, "filled": numbers, "price": numbers, "fee": numbers}),
    (records.OrderDetached, {"text": texts}),
    (records.Abandoned, {"text": texts}),
    (records.WholeBookClose, {}),
    (records.Cancelled, {"order": texts, "why": texts}),
    (
        records.Unprotected,
        dict.fromkeys(("order", "order_client_id", "side", "order_position_side", "type", "trigger_when"), texts)
        | dict.fromkeys(("amount", "price", "trigger_price"), numbers),
    ),
    (
        records.Protected,
        dict.fromkeys(("replaces", "side", "type", "trigger_when"), texts)
        | dict.fromkeys(("amount", "price", "trigger_price"), numbers),
    ),
    (records.ProtectionAnswered, {"replaces": texts, "state": texts, "order": texts}),
    (records.Verified, {"position": numbers, "target": numbers, "is_last": st.booleans()}),
    (records.Restored, {"epoch": texts}),
    (records.GivenUp, {"author": texts, "reason": texts, "event": texts}),
    (records.Locked, {"scope": texts, "status": texts}),
    (records.Charged, {"fee": numbers, "text": texts}),
    (records.Finished, of_an_account),
    (records.Finished, {"scope": st.text(), "status": texts}),
]
head = {
    "decision": st.text(max_size=4), "at": st.datetimes(timezones=st.just(UTC)), "account": texts, "symbol": texts,
    "position_side": texts, "client_order_id": texts, "attempt": st.none() | st.integers(0, 9),
    "sequence": st.integers(0, 9),
}  # fmt: skip
generated: st.SearchStrategy[Entry] = st.one_of([st.builds(kind, **head, **fields) for kind, fields in LAYOUTS])


@given(generated)
def test_every_entry_round_trips(entry: Entry) -> None:
    """Every kind, with any of its fields absent or unreadable; and its row is the same again, to the byte."""
    written = encode(entry)
    assert decode(written) == entry
    assert rows.journal_row(encode(decode(written))) == rows.journal_row(written)


def test_every_kind_of_the_model_has_one_record() -> None:
    """A kind that is added to the model needs a decoder."""
    found = {kind.kind for kind, _ in LAYOUTS}
    assert found == set(get_args(JournalKind))
    assert {type(decode(row(kind))).__name__ for kind in found} == {kind.__name__ for kind, _ in LAYOUTS}


def test_a_number_is_absent_unreadable_or_a_number() -> None:
    """An unreadable value keeps its text for display, and is unknown in every sum; null is absent."""
    entry = decode(row("filled", filled="1.50", price="NaN", fee=None))
    assert isinstance(entry, Filled)
    assert (str(entry.filled), entry.price, entry.fee) == ("1.50", Unreadable("NaN"), None)
    assert [records.known(each) for each in (entry.filled, entry.price, entry.fee)] == [D("1.5"), None, None]
    assert [records.text_of(each) for each in (entry.filled, entry.price, entry.fee)] == ["1.50", "NaN", None]


@pytest.mark.parametrize("filled", ["much", None])
def test_an_unreadable_fill_is_full_for_sending_and_unknown_for_reports(filled: str | None) -> None:
    """Nothing is closed twice because of it, and no sum uses it."""
    entry = decode(row("filled", filled=filled))
    assert isinstance(entry, Filled)
    assert (entry.worst_case_fill(D(7)), records.known(entry.filled)) == (D(7), None)


def test_a_whole_number_and_an_instant_have_the_same_three_states() -> None:
    """An invalid execution step stops nothing; an instant without a zone is invalid."""
    rungs = [decode(row("sending", rung=text)) for text in ("2", "two", None)]
    assert [each.rung for each in rungs if isinstance(each, OrderSending)] == [2, Unreadable("two"), None]
    locks = [decode(row("planned", lock="halt", until=text)) for text in ("2026-03-04T05:06:07Z", "2026-03-04", None)]
    untils = [each.lock.until for each in locks if isinstance(each, PlannedWork) and each.lock is not None]
    assert untils == [datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC), Unreadable("2026-03-04"), None]


def test_unknown_keys_are_ignored_and_missing_ones_are_absent() -> None:
    """A row of a later version, or of an earlier one."""
    assert decode(row("verified", position="1", target="0", mood="good")) == Verified(
        "d1", AT, "main", "BTC", "long", "o1", 1, position=D(1), target=D(0)
    )
    ended = decode(row("finished", status="dissolved"))
    assert isinstance(ended, Finished)
    assert (ended.final_status, ended.cost) == ("abandoned", None)


def test_an_entry_of_an_unknown_kind_is_undecodable_and_keeps_its_row() -> None:
    """It has the cause and its place, and encoded again it is the original row."""
    later = row("hedged", leg="x")
    entry = decode(later)
    assert isinstance(entry, Undecodable)
    assert (entry.key, entry.client_order_id, "hedged" in entry.why) == (("BTC", "long"), "o1", True)
    assert encode(entry) == later


@pytest.mark.parametrize("text", ['{"filled": 3}', '{"legs": ["a"]}', "[]", "{", "null"])
def test_a_store_returns_undecodable_rows_and_keeps_them_to_the_byte(tmp_path: Path, text: str) -> None:
    """A row of a later version or a garbled one neither prevents opening the store nor is left out."""
    path = tmp_path / "store.sqlite"
    open_store(str(path)).close()
    with sqlite3.connect(path) as raw:
        insert = "INSERT INTO journal (decision, kind, at, account, data) VALUES ('d1', ?, ?, 'main', ?)"
        raw.execute(insert, ("filled", to_micros(AT), text))
        raw.execute(insert, ("of a later version", to_micros(AT), "{}"))
    store = open_store(str(path))
    try:
        found = store.journal("d1")
        assert [type(decode(each)) for each in found] == [Undecodable, Undecodable]
        written = dict(zip(JOURNAL_COLUMNS, rows.journal_row(encode(decode(found[0]))), strict=True))
        assert (written["kind"], written["data"]) == ("filled", text)
    finally:
        store.close()


def accesses_data(tree: ast.Module) -> bool:
    """Whether code reads or writes the `data` of something, as an attribute or an argument of a row."""
    return any(
        (isinstance(node, ast.Attribute) and node.attr == "data")
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "JournalEntry")
        for node in ast.walk(tree)
    )


def test_only_the_codec_accesses_the_data_of_a_row(repository: Path) -> None:
    """No other module accesses it or makes a row; the store turns it into text."""
    found = {
        path.relative_to(repository).as_posix()
        for path in (repository / "killswitch").rglob("*.py")
        if accesses_data(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == {"killswitch/journal/codec.py", "killswitch/store/rows.py"}
