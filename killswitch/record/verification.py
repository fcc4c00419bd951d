"""Verification of a record: a report about everything that is wrong, line by line, and not a boolean.

Lines are read once, in their order; nothing is kept of them but the edge of the tree. It goes on behind a break, so
that the report shows where it begins, how often it occurs, and what else is in order.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Final, Literal

from msgspec import Struct

from killswitch.record.anchors import AnchorVerdict, DeclaredEpoch, FetchedAnchor, OtherRecords, judge
from killswitch.record.checkpoint import Start, epoch_in
from killswitch.record.line import (
    FORMAT,
    MOST_BYTES,
    LineContent,
    content_of,
    digest_of,
    leaf_of,
    outline_of,
    read_head,
    references_of,
)
from killswitch.record.tree import TreeEdge

Verdict = Literal["verified", "contradicted", "could not tell"]
EXIT_CODES: Final[dict[Verdict, int]] = {"verified": 0, "contradicted": 1, "could not tell": 4}

_NO_DOUBT: Final = frozenset({"confirmed", "removed", "other record"})
"""States of anchors that leave a record verified; of removed ones, where another one is confirmed."""

MOST_LISTED: Final = 20
"""Numbers of a kind that a report lists; it counts all."""
_END: Final = b"}\n"
_READ_WHOLE: Final = frozenset({"chain", "epoch", "retention"})
_MARK: Final = b"\xef\xbb\xbf"
"""A byte order mark, which some editors put at the beginning of a text."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict over several records: contradicted wins over could not tell, and that over verified."""
    found = set(verdicts)
    return next((each for each in ("contradicted", "could not tell") if each in found), "verified")


class Break(Struct, frozen=True):
    """The place of a break: the segment, the line in it from 1, the number that is due there, and what is wrong."""

    segment: str
    line: int
    number: int
    what: str


class SegmentView(Struct, frozen=True):
    """A segment: its name and the numbers of its lines."""

    name: str
    first: int | None
    last: int | None


class TornEnd(Struct, frozen=True):
    """Half a line at the end of the newest segment, as a crash leaves it: its length, and its SHA-256."""

    segment: str
    size: int
    digest: str


class Numbers(Struct):
    """Numbers of lines: how many there are, and the first of them."""

    count: int = 0
    first: list[int] = []

    def add(self, number: int) -> None:
        """Count one."""
        self.count += 1
        if len(self.first) < MOST_LISTED:
            self.first.append(number)


class RecordReport(Struct, frozen=True):
    """What the verification of a record has found."""

    chain: str | None
    entries: int
    first: int | None
    last: int | None
    root: str | None
    """The root over all lines; None where lines are missing."""
    segments: tuple[SegmentView, ...]
    breaks: int
    first_break: Break | None
    missing: tuple[tuple[int, int], ...]
    anchors: tuple[AnchorVerdict, ...]
    refused: tuple[FetchedAnchor, ...]
    """Anchors that are not genuine: they say nothing."""
    uncovered: tuple[int, int] | None
    """The first and last line that no anchor covers."""
    torn: TornEnd | None
    remarks: tuple[str, ...]
    """What was changed by a copy, and is no change of an entry: line endings, a byte order mark."""
    clock_back: Numbers
    """Lines with an earlier time than the one before: the numbers give the order."""
    withheld: Numbers
    """Lines of which a body is missing."""
    altered: Numbers
    """Lines of which a body is another one than they name."""
    unanswered: Numbers
    """Announcements without an answer: it is not known whether it has happened."""
    late: Numbers
    epochs: tuple[DeclaredEpoch, ...]
    unknown_format: str | None
    needs_anchor: bool = False
    removed: int = 0
    """The number of the last line that retention has removed; 0 where the record begins with its first line."""
    removal: int | None = None
    """The line that names the checkpoint of what was removed; None where none does, which is a break."""

    @property
    def verdict(self) -> Verdict:
        """Contradicted wins over could not tell; a record without entries is never verified."""
        states = {each.state for each in self.anchors}
        if self.breaks or self.altered.count or "contradicted" in states:
            return "contradicted"
        unclear = self.missing or self.withheld.count or self.unknown_format or states - _NO_DOUBT
        needs_anchor = self.needs_anchor or "removed" in states  # whoever cuts behind the newest anchor has removed all
        unclear = unclear or self.entries == 0 or (needs_anchor and "confirmed" not in states)
        return "could not tell" if unclear else "verified"


class RecordVerifier:
    """Verifies a record: `read` each segment in the order of its first number, then take the `report`."""

    def __init__(
        self,
        anchors: Iterable[FetchedAnchor] = (),
        body: Callable[[str, LineContent], bytes | None] | None = None,
        start: Start | None = None,
        *,
        needs_anchor: bool = False,
        others: OtherRecords = "possible",
    ) -> None:
        """`body`: the bytes that a line names by their digest, None where they are missing; without it none is read.

        `start`: of a record whose older lines were deleted. `needs_anchor`: without a confirmed anchor it is not
        verified. `others`: what is known of records with other anchors among these.
        """
        self._others = others
        self._anchors = tuple(anchors)
        self._body = body
        self._needs_anchor = needs_anchor
        start = Start() if start is None else start
        self._edge: TreeEdge | None = TreeEdge(start.number, start.hashes)
        self._leaf: bytes | None = start.leaf
        self._number = start.number
        self._chain = start.chain
        self._start, self._removal = start, None  # type: Start, int | None
        self._first: int | None = None
        self._entries = 0
        wanted = {each.anchor.number for each in self._anchors}
        self._roots: dict[int, str | None] = dict.fromkeys(wanted)
        self._wanted = frozenset(wanted)
        self._note_root()
        self._segments: list[SegmentView] = []
        self._breaks, self._first_break = 0, None  # type: int, Break | None
        self._missing: list[tuple[int, int]] = []
        self._torn: TornEnd | None = None
        self._remarks: dict[str, int] = {}
        self._clock_back, self._withheld, self._altered, self._late = Numbers(), Numbers(), Numbers(), Numbers()
        self._open: dict[int, None] = {}
        self._epochs: list[DeclaredEpoch] = list(start.epochs)
        self._unknown_format: str | None = None
        self._at = ""

    def read(self, segment: str, lines: Iterable[bytes], *, is_newest: bool = True) -> None:
        """Read the lines of a segment, each with its LF. Only the newest may end in half a line."""
        first, before, place = None, self._number, 0
        for place, raw in enumerate(lines, start=1):
            if self._is_next(raw):
                self._next(raw[:-1])
                first = self._number if first is None else first
            elif raw.endswith(b"\n"):
                text = self._without_traces_of_copies(raw[:-1], is_first=place == 1)
                self._line(segment, place, text)
                first = self._number if first is None else first
            elif is_newest:
                self._torn = TornEnd(segment, len(raw), digest_of(raw))
            else:
                self._broken(segment, place, "half a line at the end of a segment that another one follows")
        has_lines = first is not None and self._number >= before
        self._segments.append(SegmentView(segment, first if has_lines else None, self._number if has_lines else None))

    def _is_next(self, raw: bytes) -> bool:
        """Whether this is the whole line that is due, as it was written: all but a few of a million are."""
        if self._leaf is None or self._first is None or len(raw) > MOST_BYTES or not raw.endswith(_END):
            return False
        return raw.startswith(b'{"prev":"%b","seq":%d,"' % (hexlify(self._leaf), self._number + 1))

    def _next(self, text: bytes) -> None:
        """Take the line that is due."""
        self._number = number = self._number + 1
        self._leaf = leaf = sha256(b"\0" + text).digest()
        self._entries += 1
        if self._edge is not None:
            self._edge.append(leaf)
        if number in self._wanted:
            self._note_root()
        self._content(number, text)

    def _without_traces_of_copies(self, text: bytes, *, is_first: bool) -> bytes:
        if is_first and text.startswith(_MARK):
            self._remark("byte order marks, which an editor adds")
            text = text.removeprefix(_MARK)
        if text.endswith(b"\r"):
            self._remark("line endings that were changed to CR LF, as by a copy or by git")
            text = text[:-1]
        return text

    def _remark(self, what: str) -> None:
        self._remarks[what] = self._remarks.get(what, 0) + 1

    def _line(self, segment: str, place: int, text: bytes) -> None:
        """The first line, one that a copy has changed, or one that does not follow the one before."""
        due, leaf, head = self._number + 1, leaf_of(text), read_head(text)
        if head is None or len(text) > MOST_BYTES:
            self._broken(segment, place, "this is no line of a record" if head is None else "the line is too long")
            self._leaf, self._edge, self._number = leaf, None, due
            self._entries += 1
            return
        if head.number != due:
            self._other_number(segment, place, head.number)
        elif self._leaf is not None and head.previous != self._leaf:
            self._broken(segment, place, f"it does not follow line {due - 1} as that is: one of both was changed")
        self._number, self._leaf = max(self._number, head.number), leaf
        self._first = head.number if self._first is None else self._first
        self._entries += 1
        if self._edge is not None:
            self._edge.append(leaf)
        if self._number in self._wanted:
            self._note_root()
        self._content(head.number, text)

    def _other_number(self, segment: str, place: int, number: int) -> None:
        """A line with another number than is due: lines are missing in front of it, or it is out of order."""
        due = self._number + 1
        self._edge = None
        if number > due and place == 1:
            self._missing.append((due, number - 1))  # a whole segment: it may exist elsewhere
        elif number > due:
            self._broken(segment, place, f"line {number} follows line {self._number}: lines were removed")
        else:
            self._broken(segment, place, f"line {number} follows line {self._number}: inserted or exchanged")

    def _broken(self, segment: str, place: int, what: str) -> None:
        self._breaks += 1
        if self._first_break is None:
            self._first_break = Break(segment, place, self._number + 1, what)

    def _note_root(self) -> None:
        if self._edge is not None and self._number in self._wanted:
            self._roots[self._number] = self._edge.root().hex()

    def _content(self, number: int, text: bytes) -> None:
        outline = outline_of(text)
        if outline is None:
            self._not_readable(number)
            return
        if outline.at < self._at:
            self._clock_back.add(number)
        self._at = outline.at
        if outline.late is not None:
            self._late.add(number)
        if outline.announces:
            self._open[number] = None
        if outline.answers is not None:
            self._open.pop(outline.answers, None)
        if outline.kind in _READ_WHOLE or self._body is not None:
            self._whole_content(number, text)

    def _whole_content(self, number: int, text: bytes) -> None:
        """What begins a chain, what states a removal, and what has a body that is verified."""
        content = content_of(text)
        if content is None:
            self._not_readable(number)
            return
        if content.kind in ("chain", "epoch"):
            self._beginning(number, content, text)
        elif content.kind == "retention" and content.body and content.body.get("sha256") == self._start.digest:
            self._removal = number
        if self._body is not None:
            self._bodies(number, content)

    def _not_readable(self, number: int) -> None:
        self._unknown_format = self._unknown_format or f"line {number} is not in the format {FORMAT}"

    def _beginning(self, number: int, content: LineContent, text: bytes) -> None:
        if content.format != FORMAT:
            self._unknown_format = self._unknown_format or f"line {number} has the format {content.format}"
        if content.kind == "epoch" and content.chain is not None:
            self._epochs.append(epoch_in(text, number, content.chain))
        elif self._chain is None:
            self._chain = content.chain

    def _bodies(self, number: int, content: LineContent) -> None:
        assert self._body is not None
        for digest in references_of(content):
            found = self._body(digest, content)
            if found is None:
                self._withheld.add(number)
            elif sha256(found).hexdigest() != digest:
                self._altered.add(number)

    def report(self) -> RecordReport:
        """What was found in the segments read so far."""
        self._require_declared_removal()
        chain = self._chain
        if chain is None and self._epochs:
            chain = self._epochs[0].before
        if chain is None and self._first != 1 and self._anchors:
            chain = self._anchors[0].anchor.chain  # the line that names it was deleted or is missing
        last = self._number
        verdicts = judge(
            self._anchors, self._roots, last, chain or "", self._epochs, self._start.number, others=self._others
        )
        covered = max((each.fetched.anchor.number for each in verdicts if each.state == "confirmed"), default=0)
        open_ones = Numbers(len(self._open), list(self._open)[:MOST_LISTED])
        return RecordReport(
            chain=self._epochs[-1].chain if self._epochs else chain,
            entries=self._entries,
            first=self._first,
            last=last if self._entries else None,
            root=None if self._edge is None else self._edge.root().hex(),
            segments=tuple(self._segments),
            breaks=self._breaks,
            first_break=self._first_break,
            missing=tuple(self._missing),
            anchors=verdicts,
            refused=tuple(each for each in self._anchors if each.refused is not None),
            uncovered=(max(covered, (self._first or 1) - 1) + 1, last) if self._entries and covered < last else None,
            torn=self._torn,
            remarks=tuple(f"{many} {what}" for what, many in self._remarks.items()),
            clock_back=self._clock_back,
            withheld=self._withheld,
            altered=self._altered,
            unanswered=open_ones,
            late=self._late,
            epochs=tuple(self._epochs),
            unknown_format=self._unknown_format,
            needs_anchor=self._needs_anchor,
            removed=self._start.number,
            removal=self._removal,
        )

    def _require_declared_removal(self) -> None:
        """Lines that retention removed are named by a line that is still there; all others were cut."""
        removed = self._start.number
        if removed and self._removal is None and self._first_break is None:
            what = f"lines 1 to {removed} are not there, and no line states that retention removed them"
            self._breaks, self._first_break = 1, Break("its beginning", 1, 1, what)


def in_order(firsts: Sequence[tuple[str, bytes]]) -> tuple[str, ...]:
    """The names of segments in the order of the numbers of their first lines, never by name or date.

    `firsts`: name and first line of each. One that begins with no line comes last.
    """
    heads = {name: read_head(line.rstrip(b"\r\n").removeprefix(_MARK)) for name, line in firsts}
    return tuple(sorted(heads, key=lambda name: (1 << 62, name) if (it := heads[name]) is None else (it.number, name)))
