"""A chain of lines for tests of the record, made as a store makes it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from killswitch.model.record_entry import RecordEntry
from killswitch.record.anchors import Anchor, FetchedAnchor
from killswitch.record.line import FORMAT, NO_LEAF, Line, make_line
from killswitch.record.tree import root_of
from killswitch.record.verification import RecordReport, RecordVerifier

CHAIN = "5f" * 16
AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


def first_entry() -> RecordEntry:
    """The entry that begins a chain."""
    return RecordEntry("chain", AT, {"chain": CHAIN, "format": FORMAT})


def an_order(number: int) -> RecordEntry:
    """An entry about one order, which neither announces nor answers."""
    at = AT + timedelta(seconds=number)
    return RecordEntry("order", at, {"entry": "verified", "account": "main"}, {"amount": f"{number}.50"})


def chained(entries: Iterable[RecordEntry]) -> list[Line]:
    """The lines of these entries."""
    lines: list[Line] = []
    for number, entry in enumerate(entries, start=1):
        lines.append(make_line(entry, number, lines[-1].leaf if lines else NO_LEAF, lambda: bytes(16)))
    return lines


def raw_lines(count: int) -> list[bytes]:
    """A chain of `count` lines as a file has them."""
    entries = [first_entry(), *(an_order(number) for number in range(2, count + 1))][:count]
    return [line.text + b"\n" for line in chained(entries)]


def anchor_at(lines: list[bytes], number: int) -> FetchedAnchor:
    """A genuine anchor over the first `number` lines."""
    from hashlib import sha256

    root = root_of(sha256(b"\0" + line.rstrip(b"\n")).digest() for line in lines[:number])
    return FetchedAnchor(Anchor(CHAIN, number, root.hex()), "a test")


def verified(
    segments: dict[str, list[bytes]], anchors: Iterable[FetchedAnchor] = (), *, needs_anchor: bool = False
) -> RecordReport:
    """The report over segments, of which the last one is the newest."""
    verifier = RecordVerifier(anchors, needs_anchor=needs_anchor)
    for name, lines in segments.items():
        verifier.read(name, lines, is_newest=name == list(segments)[-1])
    return verifier.report()
