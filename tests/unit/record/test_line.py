"""Lines of the record: their bytes by hand, their length, and what is kept outside of them."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.model.record_entry import Field, Private, RecordEntry
from killswitch.record.line import MOST_BYTES, NO_LEAF, content_of, leaf_of, make_line, read_head, references_of
from tests.unit.record.chains import AT


def longest_line() -> bytes:
    """An order with so many details that they just fit."""
    for length in range(1, MOST_BYTES):
        made = make_line(RecordEntry("order", AT, {"account": "main"}, {"text": "x" * length}), 10**6, NO_LEAF, bytes)
        if made.kept:
            break
        line = made.text
    return line


def test_a_line_has_the_bytes_of_the_definition() -> None:
    """`prev` and `seq` first, then the other keys sorted, no blanks; the leaf is SHA-256 of 00 and the line."""
    entry = RecordEntry("order", AT, {"entry": "sending", "account": "main"}, {"price": "1.0", "amount": "2"})
    line = make_line(entry, 3, bytes(range(32)), lambda: bytes(16))
    text = (
        b'{"prev":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","seq":3,'
        b'"account":"main","at":"2026-03-02T09:30:00Z","details":{"amount":"2","price":"1.0"},"entry":"sending",'
        b'"kind":"order"}'
    )
    assert line.text == text
    assert line.leaf == leaf_of(text) == sha256(b"\0" + text).digest()
    head = read_head(text)
    assert head is not None
    assert (head.previous, head.number) == (bytes(range(32)), 3)


def test_a_decision_of_a_thousand_positions_is_in_the_line_by_its_digest() -> None:
    """SHA-256 and length; the store has the bytes already."""
    body = b"x" * 200_000
    line = make_line(RecordEntry("decision", AT, {"decision": "d1"}, body=body, kept="decisions"), 1, NO_LEAF, bytes)
    assert json.loads(line.text)["body"] == {"sha256": sha256(body).hexdigest(), "size": 200_000}
    assert line.kept == ()
    kept = make_line(RecordEntry("decision", AT, {"decision": "d1"}, body=body), 1, NO_LEAF, bytes).kept
    assert [(each.digest, each.content) for each in kept] == [(sha256(body).hexdigest(), body)]


def test_a_persons_name_is_in_the_line_as_a_salted_digest_only() -> None:
    """Erasing value and salt leaves the chain whole, and without the salt nobody can guess a short name."""
    entry = RecordEntry("command", AT, {"actor": Private("ada@desk.example")})
    line = make_line(entry, 1, NO_LEAF, lambda: b"0123456789abcdef")
    expected = sha256(b"0123456789abcdef" + b"ada@desk.example").hexdigest()
    assert json.loads(line.text)["actor"] == {"salted": expected}
    assert b"ada" not in line.text
    (kept,) = line.kept
    assert (kept.digest, kept.content, kept.salt) == (expected, b"ada@desk.example", b"0123456789abcdef")


@pytest.mark.parametrize(
    "text", ["\ud800", "\u2028", "e\u0301", "\u00e9", "\0", '"\\', "1e400", "\U0001f600", "a\nb", "\r\n"]
)
def test_a_text_of_any_characters_is_one_line_of_utf_8(text: str) -> None:
    """Lone surrogates, U+2028, both forms of an accent, blanks and control characters."""
    line = make_line(RecordEntry("notice", AT, {}, {"text": text}), 1, NO_LEAF, bytes)
    assert b"\n" not in line.text
    assert b"\r" not in line.text
    found = json.loads(line.text.decode())["details"]["text"]
    assert found == text if text != "\ud800" else found == "\\ud800"


VALUES = st.one_of(
    st.text(max_size=900), st.integers(-(2**53), 2**53), st.booleans(), st.builds(Private, st.text(max_size=50))
)
TYPED = (
    "at", "kind", "details", "body", "fields", "prev", "seq", "announces", "answers", "late", "chain", "format",
    "decision", "command",
)  # fmt: skip
"""Keys whose types a reader relies on."""
NAMES = st.text(st.characters(categories=["Ll"]), min_size=1, max_size=20).filter(lambda name: name not in TYPED)
FIELDS: st.SearchStrategy[dict[str, Field]] = st.dictionaries(NAMES, VALUES, max_size=12)


@given(FIELDS, FIELDS, st.integers(1, 10**15), st.one_of(st.none(), st.integers(1, 10**15)))
def test_no_line_is_longer_than_700_bytes_and_none_loses_anything(
    fields: dict[str, Field], data: dict[str, Field], number: int, answers: int | None
) -> None:
    """What does not fit is kept under the digest that the line names."""
    entry = RecordEntry("order", AT, fields, data, body=b"b", announces="order/1")
    line = make_line(entry, number, NO_LEAF, lambda: bytes(16), answers=answers, late="2026-03-02T09:30:00Z")
    assert len(line.text) <= MOST_BYTES
    content = content_of(line.text)
    assert content is not None
    assert (content.seq, content.kind, content.announces, content.answers) == (number, "order", True, answers)
    kept = {each.digest: each for each in line.kept}
    assert set(references_of(content)) <= set(kept)
    assert all(sha256((each.salt or b"") + each.content).hexdigest() == digest for digest, each in kept.items())
