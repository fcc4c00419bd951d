"""Verification: 25 ways to tamper, what only an anchor shows, and what is no tampering."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.model.record_entry import RecordEntry
from killswitch.record.anchors import Anchor, FetchedAnchor, anchor_text, read_anchors
from killswitch.record.checkpoint import Start
from killswitch.record.line import FORMAT, NO_LEAF, leaf_of, make_line
from killswitch.record.tree import EMPTY_ROOT, TreeEdge
from killswitch.record.verification import EXIT_CODES, RecordVerifier, in_order
from tests.unit.record.chains import AT, CHAIN, an_order, anchor_at, chained, first_entry, raw_lines, verified

Lines = list[bytes]
COUNT = 40


def rewritten(lines: Lines, start: int) -> Lines:
    """The lines with everything from line `start` on rewritten into a chain that follows, with other contents."""
    kept = lines[: start - 1]
    leaf = leaf_of(kept[-1].rstrip(b"\n")) if kept else NO_LEAF
    for number in range(start, len(lines) + 1):
        entry = first_entry() if number == 1 else replace(an_order(number), details={"amount": "0"})
        line = make_line(entry, number, leaf, bytes)
        kept, leaf = [*kept, line.text + b"\n"], line.leaf
    return kept


def changed(lines: Lines, number: int, of: bytes, to: bytes) -> Lines:
    """The lines with a text of one of them replaced."""
    assert of in lines[number - 1]
    return [line.replace(of, to, 1) if at == number else line for at, line in enumerate(lines, start=1)]


def moved(lines: Lines, *numbers: int) -> Lines:
    """The lines of these numbers, in this order."""
    return [lines[number - 1] for number in numbers]


ALL = tuple(range(1, COUNT + 1))
TAMPERED: dict[str, Callable[[Lines], Lines]] = {
    "an amount is changed": lambda it: changed(it, 20, b'"20.50"', b'"02.50"'),
    "a number is spelt otherwise": lambda it: changed(it, 20, b'"20.50"', b'"20.5"'),
    "an exponent": lambda it: changed(it, 20, b'"20.50"', b'"2.05e1"'),
    "a time is changed": lambda it: changed(it, 20, b"09:30:20", b"09:30:21"),
    "the first line is changed": lambda it: changed(it, 1, b"09:30:00", b"09:30:01"),
    "two keys are exchanged": lambda it: changed(
        it, 20, b'"account":"main","at":"2026-03-02T09:30:20Z"', b'"at":"2026-03-02T09:30:20Z","account":"main"'
    ),
    "a key is repeated": lambda it: changed(it, 20, b'"account":"main"', b'"account":"main","account":"main"'),
    "a character is escaped": lambda it: changed(it, 20, b'"main"', b'"m\\u0061in"'),
    "a blank inside": lambda it: changed(it, 20, b'"account":', b'"account": '),
    "a blank at the end": lambda it: changed(it, 20, b"\n", b" \n"),
    "a tab before": lambda it: changed(it, 20, b'{"prev"', b'\t{"prev"'),
    "the number is changed": lambda it: changed(it, 20, b'"seq":20', b'"seq":21'),
    "the number has a nought in front": lambda it: changed(it, 20, b'"seq":20', b'"seq":020'),
    "the number is a float": lambda it: changed(it, 20, b'"seq":20', b'"seq":20.0'),
    "the hash of the line before is changed": lambda it: changed(it, 20, it[19][9:13], b"0000"),
    "the hash in capitals": lambda it: [line.upper() if at == 19 else line for at, line in enumerate(it)],
    "a line is removed": lambda it: moved(it, *ALL[:19], *ALL[20:]),
    "several lines are removed": lambda it: moved(it, *ALL[:10], *ALL[30:]),
    "a line is repeated": lambda it: moved(it, *ALL[:20], 20, *ALL[20:]),
    "two lines are exchanged": lambda it: moved(it, *ALL[:18], 20, 19, *ALL[20:]),
    "all lines are turned round": lambda it: it[::-1],
    "a line is inserted": lambda it: [*it[:20], it[19].replace(b"20.50", b"77.77"), *it[20:]],
    "a line of another chain": lambda it: [*it[:20], rewritten(it, 1)[20], *it[21:]],
    "an empty line is inserted": lambda it: [*it[:20], b"\n", *it[20:]],
    "a line that is no record": lambda it: [*it[:20], b'{"hello":1}\n', *it[20:]],
    "a line of 4,000 bytes": lambda it: changed(it, 20, b'"main"', b'"' + b"m" * 4000 + b'"'),
    "two lines become one": lambda it: [*it[:19], it[19].rstrip(b"\n") + it[20], *it[21:]],
    "a line is halved": lambda it: [*it[:19], it[19][:100] + b"\n", it[19][100:], *it[20:]],
}
"""Ways to change a record without making the rest of its chain again: no anchor is needed to see them."""


@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
def test_each_change_before_the_last_line_is_found_by_the_chain_alone(tamper: Callable[[Lines], Lines]) -> None:
    """With the place of the first break, and without an anchor."""
    report = verified({"a": tamper(raw_lines(COUNT))})
    assert report.verdict == "contradicted"
    assert report.breaks >= 1
    assert report.first_break is not None
    assert report.first_break.segment == "a"


UNSEEN: dict[str, Callable[[Lines], Lines]] = {
    "the last line is cut": lambda it: it[:-1],
    "the tail is cut": lambda it: it[:10],
    "all but the first line": lambda it: it[:1],
    "the last line is changed": lambda it: changed(it, COUNT, b'"40.50"', b'"04.50"'),
    "everything is written again": lambda it: rewritten(it, 1),
    "the end is written again": lambda it: rewritten(it, 25),
    "the log is empty": lambda _: [],
}
"""What keeps a chain whole: only an anchor shows it."""


@pytest.mark.parametrize("tamper", UNSEEN.values(), ids=UNSEEN)
def test_what_keeps_the_chain_whole_is_found_by_an_anchor_and_by_nothing_else(
    tamper: Callable[[Lines], Lines],
) -> None:
    """An anchor at exactly the last entry contradicts; without one the report says which entries none covers."""
    lines = raw_lines(COUNT)
    spoilt = tamper(lines)
    assert verified({"a": spoilt}, [anchor_at(lines, COUNT)]).verdict == "contradicted"
    report = verified({"a": spoilt})
    assert report.breaks == 0
    assert report.uncovered == ((1, len(spoilt)) if spoilt else None)
    assert report.verdict == ("verified" if spoilt else "could not tell")


@given(st.integers(0, COUNT), st.integers(1, COUNT))
def test_an_anchor_covers_exactly_the_entries_up_to_its_number(number: int, start: int) -> None:
    """A rewrite of the end is contradicted where it begins at or before the anchor, and else uncovered."""
    lines = raw_lines(COUNT)
    report = verified({"a": lines}, [anchor_at(lines, number)])
    assert report.verdict == "verified"
    assert report.uncovered == (None if number == COUNT else (number + 1, COUNT))
    spoilt = verified({"a": rewritten(lines, max(2, start))}, [anchor_at(lines, number)])
    assert spoilt.verdict == ("contradicted" if max(2, start) <= number else "verified")


def test_it_goes_on_behind_the_first_break() -> None:
    """And counts every one: two changed lines are two breaks, at the lines that follow them."""
    lines = changed(changed(raw_lines(COUNT), 10, b"10.50", b"00.50"), 30, b"30.50", b"00.50")
    report = verified({"a": lines})
    assert report.breaks == 2
    assert report.first_break is not None
    assert (report.first_break.line, report.first_break.number) == (11, 11)
    assert (report.entries, report.last) == (COUNT, COUNT)


def test_a_log_of_one_entry_is_verified_with_its_anchor() -> None:
    """Its root is its leaf."""
    lines = raw_lines(1)
    anchor = anchor_at(lines, 1)
    assert anchor.anchor.root == sha256(b"\0" + lines[0].rstrip(b"\n")).hexdigest()
    assert verified({"a": lines}, [anchor], needs_anchor=True).verdict == "verified"


def test_an_anchor_of_number_0_covers_nothing() -> None:
    """The empty tree has one root; another one contradicts."""
    lines = raw_lines(3)
    assert anchor_at(lines, 0).anchor.root == EMPTY_ROOT.hex()
    assert verified({"a": lines}, [anchor_at(lines, 0)]).uncovered == (1, 3)
    false = FetchedAnchor(Anchor(CHAIN, 0, "00" * 32), "a test")
    assert verified({"a": lines}, [false]).verdict == "contradicted"
    assert verified({"a": []}, [anchor_at(lines, 0)], needs_anchor=True).verdict == "could not tell"


@pytest.mark.parametrize("is_first", [True, False])
def test_two_anchors_of_one_number_with_different_roots_contradict_whichever_comes_first(is_first: bool) -> None:
    """One of the histories is false, and the log agrees with one of them."""
    lines = raw_lines(COUNT)
    true, false = anchor_at(lines, 20), FetchedAnchor(Anchor(CHAIN, 20, "ab" * 32), "another place")
    report = verified({"a": lines}, [false, true] if is_first else [true, false])
    assert report.verdict == "contradicted"
    assert {each.state for each in report.anchors} == {"contradicted"}


def test_an_anchor_that_is_not_genuine_says_nothing() -> None:
    """It is listed, and contradicts and confirms nothing."""
    lines = raw_lines(COUNT)
    forged = replace(anchor_at(raw_lines(COUNT), COUNT), refused="no key of the allowed signers signed it")
    report = verified({"a": lines}, [forged], needs_anchor=True)
    assert report.verdict == "could not tell"
    assert report.refused == (forged,)
    assert report.uncovered == (1, COUNT)


def published(chain: str, number: int, publication: str | None, root: str = "00" * 32) -> FetchedAnchor:
    return FetchedAnchor(Anchor(chain, number, root), "a test", publication=publication)


def test_anchors_of_another_chain_alone_contradict() -> None:
    """A record that was written again whole has a chain id of its own. No line links it with what was published."""
    other = published("11" * 16, 3, None)
    assert verified({"a": raw_lines(5)}, [other]).verdict == "contradicted"
    assert verified({"a": []}, [other]).verdict == "contradicted"


OTHER_CHAINS: dict[str, tuple[list[tuple[str, str | None]], str]] = {
    "the record of the servers, always published with this one": (
        [("ours", "1"), ("ours", "2"), ("it", "2")], "verified",
    ),
    "the record before, whose anchors came earlier": ([("it", "1"), ("it", "2"), ("ours", "3")], "contradicted"),
    "the record before, published once more with the new one": (
        [("it", "1"), ("ours", "2"), ("it", "2")], "could not tell",
    ),
    "a collection that does not show what was published together": ([("ours", None), ("it", None)], "could not tell"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER_CHAINS)
def test_an_anchor_of_another_chain_next_to_ours(case: str) -> None:
    """Who was published with whom tells a record that was written again from the one of the servers."""
    lines = raw_lines(COUNT)
    rows, verdict = OTHER_CHAINS[case]
    ours = anchor_at(lines, COUNT).anchor.root
    anchors = [
        published(CHAIN, COUNT, publication, ours) if which == "ours" else published("11" * 16, 3, publication)
        for which, publication in rows
    ]
    assert verified({"a": lines}, anchors, needs_anchor=True).verdict == verdict


def test_a_missing_segment_is_a_missing_range_and_not_tampering() -> None:
    """It may exist elsewhere: what an anchor covers behind it cannot be told."""
    lines = raw_lines(COUNT)
    report = verified({"a": lines[:10], "c": lines[20:]}, [anchor_at(lines, 10), anchor_at(lines, 30)])
    assert report.missing == ((11, 20),)
    assert [each.state for each in report.anchors] == ["confirmed", "could not tell"]
    assert (report.breaks, report.verdict) == (0, "could not tell")
    assert verified({"b": lines[10:]}).missing == ((1, 10),)


def test_a_missing_segment_at_the_end_contradicts_the_newest_anchor() -> None:
    """A log that is shorter than an anchor was cut."""
    lines = raw_lines(COUNT)
    report = verified({"a": lines[:20]}, [anchor_at(lines, 20), anchor_at(lines, COUNT)])
    assert [each.state for each in report.anchors] == ["confirmed", "contradicted"]
    assert report.anchors[1].why == "the log ends at line 20: 20 entries are missing at its end"


def test_segments_are_ordered_by_their_first_number() -> None:
    """Whatever their names and dates are."""
    lines = raw_lines(COUNT)
    parts = {"2026-01": lines[20:], "zz": lines[:10], "b": lines[10:20]}
    order = in_order([(name, part[0]) for name, part in parts.items()])
    assert order == ("zz", "b", "2026-01")
    assert verified({name: parts[name] for name in order}, [anchor_at(lines, COUNT)]).verdict == "verified"


def test_half_a_line_is_a_crash_in_the_newest_segment_and_tampering_in_an_older_one() -> None:
    """The next start cuts it, and records length and hash."""
    lines = raw_lines(COUNT)
    half = lines[20][:57]
    report = verified({"a": lines[:10], "b": [*lines[10:20], half]})
    assert report.torn is not None
    assert (report.torn.segment, report.torn.size, report.torn.digest) == ("b", 57, sha256(half).hexdigest())
    assert report.verdict == "verified"
    older = verified({"a": [*lines[:10], lines[10][:57]], "b": lines[10:]})
    assert older.verdict == "contradicted"
    assert older.first_break is not None
    assert older.first_break.segment == "a"


def test_line_endings_of_a_copy_are_named_and_are_no_tampering() -> None:
    """CR LF and a byte order mark; the entries are those that were written."""
    lines = raw_lines(5)
    copied = [line.replace(b"\n", b"\r\n") for line in lines]
    report = verified({"a": [b"\xef\xbb\xbf" + copied[0], *copied[1:]]}, [anchor_at(lines, 5)])
    assert report.verdict == "verified"
    assert report.remarks == (
        "1 byte order marks, which an editor adds",
        "5 line endings that were changed to CR LF, as by a copy or by git",
    )


def test_a_clock_that_goes_back_is_a_remark() -> None:
    """The numbers give the order."""
    entries = [first_entry(), an_order(50), an_order(3), an_order(4)]
    report = verified({"a": [line.text + b"\n" for line in chained(entries)]})
    assert (report.clock_back.count, report.clock_back.first, report.verdict) == (1, [3], "verified")


def test_an_announcement_without_an_answer_is_not_known_to_have_happened() -> None:
    """It is listed by its number, and one with an answer is not."""
    announced = [RecordEntry("order", AT, {"entry": "sending"}, announces=f"order/{name}") for name in ("one", "two")]
    lines = chained([first_entry(), *announced])
    answer = make_line(RecordEntry("order", AT, {"entry": "filled"}), 4, lines[-1].leaf, bytes, answers=2)
    report = verified({"a": [line.text + b"\n" for line in (*lines, answer)]})
    assert (report.unanswered.count, report.unanswered.first) == (1, [3])


def test_a_missing_body_is_withheld_and_another_body_is_tampering() -> None:
    """Only the first could not tell; the second contradicts."""
    entry = RecordEntry("decision", AT + timedelta(seconds=2), {"decision": "d1"}, body=b"the decision")
    lines = [line.text + b"\n" for line in chained([first_entry(), entry])]
    found = []
    for body in (b"the decision", None, b"another decision"):
        verifier = RecordVerifier(body=lambda _digest, _line, body=body: body)  # type: ignore[misc] # a bound default
        verifier.read("a", lines)
        found.append((verifier.report().verdict, verifier.report().withheld.first, verifier.report().altered.first))
    assert found == [("verified", [], []), ("could not tell", [2], []), ("contradicted", [], [2])]


def test_a_restore_is_an_epoch_and_what_it_lost_is_counted() -> None:
    """Anchors of the chain before, of numbers behind it, are superseded: that could not be told, not tampering."""
    lines = raw_lines(30)
    epoch = RecordEntry(
        "epoch", AT, {"chain": "77" * 16, "before": CHAIN, "format": FORMAT, "number": 20, "newest_anchor": 28}
    )
    line = make_line(epoch, 21, leaf_of(lines[19].rstrip(b"\n")), bytes)
    restored = [*lines[:20], line.text + b"\n"]
    report = verified({"a": restored}, [anchor_at(lines, 10), anchor_at(lines, 28)])
    assert [each.state for each in report.anchors] == ["confirmed", "superseded"]
    assert (report.epochs[0].lost, report.chain, report.verdict) == (8, "77" * 16, "could not tell")
    undeclared = [*lines[:20], make_line(an_order(21), 21, leaf_of(lines[19].rstrip(b"\n")), bytes).text + b"\n"]
    assert verified({"a": undeclared}, [anchor_at(lines, 28)]).verdict == "contradicted"


def test_an_unknown_format_could_not_tell() -> None:
    """A later version may count otherwise."""
    entry = RecordEntry("chain", AT, {"chain": CHAIN, "format": "killswitch.audit/v9"})
    report = verified({"a": [line.text + b"\n" for line in chained([entry])]})
    assert (report.verdict, report.unknown_format) == ("could not tell", "line 1 has the format killswitch.audit/v9")


def test_after_retention_the_edge_of_what_was_deleted_carries_later_anchors() -> None:
    """Anchors behind it are confirmed, and cover what those before it did. A line has to name what was removed."""
    lines = raw_lines(COUNT)
    edge = TreeEdge()
    for line in lines[:20]:
        edge.append(leaf_of(line.rstrip(b"\n")))
    start = Start(20, leaf_of(lines[19].rstrip(b"\n")), tuple(edge.hashes), CHAIN)
    verifier = RecordVerifier([anchor_at(lines, 10), anchor_at(lines, 20), anchor_at(lines, COUNT)], start=start)
    verifier.read("b", lines[20:])
    states = [each.state for each in verifier.report().anchors]
    assert states == ["removed", "confirmed", "confirmed"]
    report = verifier.report()
    assert (report.first, report.uncovered, report.removed, report.removal) == (21, None, 20, None)
    assert report.verdict == "contradicted", "no line names it: it may be a cut"


def test_contradicted_wins_over_could_not_tell() -> None:
    """Exit codes are 0, 1 and 4."""
    lines = raw_lines(COUNT)
    both = verified({"a": changed(lines, 5, b"5.50", b"6.50")[:10], "c": lines[20:]})
    assert both.missing
    assert both.verdict == "contradicted"
    assert [EXIT_CODES[each] for each in ("verified", "contradicted", "could not tell")] == [0, 1, 4]


def test_the_text_of_an_anchor_is_read_back_and_nothing_else_is() -> None:
    """Several chains follow each other in one text."""
    anchors = (Anchor(CHAIN, 7, "ab" * 32), Anchor("00" * 16, 0, EMPTY_ROOT.hex()))
    text = "".join(map(anchor_text, anchors))
    assert read_anchors(text) == anchors
    assert text.splitlines()[:4] == ["killswitch.anchor/v1", f"chain {CHAIN}", "number 7", f"root {'ab' * 32}"]
    with pytest.raises(ValueError, match="line 5 does not begin an anchor"):
        read_anchors(text.replace("number 0", "number 00"))
