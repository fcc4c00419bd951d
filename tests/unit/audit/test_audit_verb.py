"""`ksctl audit`: exit codes, reports for people, and what goes to stdout."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from killswitch.audit.exporting import export_segments
from killswitch.cli import ksctl
from killswitch.model.store import JournalEntry
from killswitch.record.anchors import Anchor, anchor_text
from killswitch.store.sqlite import open_store

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(ksctl, ["audit", *map(str, arguments)], standalone_mode=False)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a store of seven lines, its log, and the anchor of all of them."""
    store = open_store(str(tmp_path / "ks.sqlite"))
    for number in range(6):
        store.append(JournalEntry("d1", "sending", NOW, "main", "BTC/USDT:USDT", "long", f"ks-{number}", 1))
    export_segments(store, tmp_path / "log")
    tip = store.record_tip()
    assert tip is not None
    (tmp_path / "anchors.txt").write_text(anchor_text(Anchor(tip.chain, tip.number, tip.root.hex())))
    store.close()
    return tmp_path


def only_the_first_line_of(log: Path) -> Path:
    """A log of its own, in a folder next to it."""
    (segment,) = log.glob("*.jsonl")
    first = log.parent / "first.jsonl"
    first.write_bytes(segment.read_bytes().splitlines(keepends=True)[0])
    return first


def test_an_intact_record_exits_0_and_says_what_no_anchor_covers(place: Path) -> None:
    """A chain that is whole says nothing about its end."""
    result = run("verify", "--store", place / "ks.sqlite")
    assert result.return_value == 0
    assert "verdict    verified" in result.stdout
    assert "7 entries, from 1 to 7, are covered by no anchor" in result.stdout
    assert "6 lines (2, 3, 4, 5, 6, 7) announced what is not known to have happened" in result.stdout
    assert "1 entry, 1, is covered by no anchor" in run("verify", "--log", only_the_first_line_of(place / "log")).stdout


def test_with_the_anchor_of_the_last_line_every_entry_is_covered(place: Path) -> None:
    """Of the store and of the log alike; the JSON has the whole report."""
    for record in (("--store", place / "ks.sqlite"), ("--log", place / "log")):
        result = run("verify", *record, "--anchors", place / "anchors.txt", "-o", "json")
        found = json.loads(result.stdout)
        assert (result.return_value, found["verdict"], found["report"]["uncovered"]) == (0, "verified", None)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda lines: [line.replace(b"ks-2", b"ks-9") for line in lines], 1),
        (lambda lines: lines[:5], 1),
        (lambda _: [], 1),
        (lambda lines: lines[3:], 4),
    ],
    ids=["a changed line", "a cut end", "an empty log", "a missing beginning"],
)
def test_contradicted_is_1_and_what_cannot_be_told_is_4(place: Path, spoil: object, code: int) -> None:
    """With the anchor at hand."""
    (segment,) = (place / "log").glob("*.jsonl")
    assert callable(spoil)
    segment.write_bytes(b"".join(spoil(segment.read_bytes().splitlines(keepends=True))))
    assert run("verify", "--log", place / "log", "--anchors", place / "anchors.txt").return_value == code


def test_an_empty_record_is_never_verified(place: Path) -> None:
    """Without an anchor nothing contradicts it either."""
    (segment,) = (place / "log").glob("*.jsonl")
    segment.write_bytes(b"")
    result = run("verify", "--log", place / "log")
    assert result.return_value == 4
    assert "a record without entries is never verified" in result.stdout


def test_a_folder_without_a_segment_is_an_empty_record(tmp_path: Path) -> None:
    """Such as a misspelled one, or an export that was never made."""
    result = run("verify", "--log", tmp_path)
    assert (result.exception, result.return_value) == (None, 4)
    assert "a record without entries is never verified" in result.stdout


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        ("yesterday", "2026-03-03T00:00:00Z", "write it as 2026-03-01T00:00:00Z"),
        ("2026-03-02T00:00:00", "2026-03-03T00:00:00Z", "end it with Z for UTC"),
        ("2026-03-03T00:00:00Z", "2026-03-02T00:00:00Z", "--to is not after --from"),
    ],
)
def test_a_period_that_is_none_is_wrong_usage(place: Path, begin: str, end: str, expected: str) -> None:
    """The error says how a time is written, and does not look for lines of an empty period."""
    result = run("statement", "--store", place / "ks.sqlite", "--from", begin, "--to", end)
    assert expected in str(getattr(result.exception, "message", result.exception))


def test_a_proof_for_a_size_that_lacks_the_line_names_the_size(place: Path) -> None:
    """Line 5 is in the record of seven lines, and not in that of four."""
    result = run("prove", "5", "--size", "4", "--store", place / "ks.sqlite")
    assert "no line of the first 4 lines of the record, which --size names, is number 5" in str(result.exception)


def test_the_tail_is_the_lines_as_they_are_stored(place: Path) -> None:
    """One line of JSON each, the last ones."""
    lines = run("tail", "--store", place / "ks.sqlite", "-n", 2).stdout.splitlines()
    assert [json.loads(line)["client_order_id"] for line in lines] == ["ks-4", "ks-5"]
    (segment,) = (place / "log").glob("*.jsonl")
    assert segment.read_text().splitlines()[-2:] == lines


def test_a_proof_is_checked_without_the_record(place: Path) -> None:
    """It prints the line; a changed line is refused with exit code 1."""
    proof = place / "proof.json"
    run("prove", 4, "--store", place / "ks.sqlite", "--out", proof)
    (place / "ks.sqlite").unlink()
    checked = run("check", proof, "--anchors", place / "anchors.txt")
    assert checked.return_value == 0
    assert json.loads(checked.stdout)["client_order_id"] == "ks-2"
    proof.write_text(proof.read_text().replace("ks-2", "ks-9"))
    refused = run("check", proof, "--anchors", place / "anchors.txt")
    assert refused.return_value == 1
    assert "line 4 is not proved: the path leads to another root" in refused.stderr


def test_a_record_must_be_named() -> None:
    """Usage, and not a guess."""
    result = run("verify")
    assert "Name a record" in str(result.exception)


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_an_export_says_what_it_wrote(place: Path, form: str) -> None:
    """On stderr: stdout is for answers."""
    result = run("export", "--store", place / "ks.sqlite", "--to", place / f"out.{form}", "--format", form)
    assert result.stdout == ""
    assert "exported 7 lines" in result.stderr
