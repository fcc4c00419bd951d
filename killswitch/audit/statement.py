"""The statement of a period: figures that a stranger computes again with the log, anchors and one file (`checker.py`).

It begins behind an anchor and ends at one, so that both ends can be held against what was published.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from killswitch.audit import checker as program
from killswitch.audit.log_files import AuditError, NumberedLines
from killswitch.model.instant import rfc3339
from killswitch.record.line import content_of, digest_of, keys_of

CHECKER: Final = Path(program.__file__)


class PeriodStatement(Struct, frozen=True, kw_only=True):
    """What is claimed of the lines from `first` to `last`. `root`: of the tree of the lines up to `last`.

    `anchored`: the numbers of the anchors at both ends, where there are any. `checker`: SHA-256 of the file that checks
    it. `figures`: by name, each computed by the query of `checker.PeriodFigures` of that name.
    """

    format: str = program.FORMAT
    chain: str
    first: int
    last: int
    begins: str
    ends: str
    root: str
    anchored: tuple[int, ...]
    checker: str
    figures: dict[str, Any]
    not_claimed: tuple[str, ...] = program.NOT_CLAIMED
    lines_from: int = 1
    """The first line that the record had: retention has removed those before."""


class _Period(Struct):
    """The first and last line of a period, and the numbers of published anchors, each of lines before its own."""

    first: int | None = None
    last: int = 0
    anchors: list[int] = []


def checker_text() -> str:
    """The file that a stranger runs."""
    return CHECKER.read_text(encoding="utf-8")


def make_statement(source: NumberedLines, begin: datetime, end: datetime) -> PeriodStatement:
    """The statement over the entries of a period, widened to the anchors around it. AuditError without entries."""
    period = _period(source, begin, end)
    if period.first is None:
        raise AuditError(f"the record has no entry from {rfc3339(begin)} to {rfc3339(end)}")
    removed = source.record_start().number
    before = max((number for number in period.anchors if removed <= number < period.first), default=removed)
    last = min((number for number in period.anchors if number >= period.last), default=period.last)
    first = before + 1
    log, figures = program.Log({last}, source.record_checkpoint()), program.PeriodFigures(first, last)
    for line in source.record_lines():
        if line.number > last:
            break
        keys = log.add(line.text, f"line {line.number}", starts_segment=line.number == 1)
        if keys is not None:
            figures.add(keys)
    if log.wrong or log.missing:
        raise AuditError(f"the record is not whole: {(log.wrong + log.missing)[0]}; see `ksctl audit verify`")
    return PeriodStatement(
        chain=log.chain or "",
        first=first,
        last=last,
        begins=rfc3339(min(figures.times)),
        ends=rfc3339(max(figures.times)),
        root=log.roots[last],
        anchored=tuple(each for each in (before, last) if each in period.anchors),
        checker=digest_of(CHECKER.read_bytes()),
        figures=figures.values(),
        lines_from=log.first,
    )


def _period(source: NumberedLines, begin: datetime, end: datetime) -> _Period:
    period = _Period()
    for line in source.record_lines():
        content = content_of(line.text)
        if content is None:
            continue
        if content.kind == "anchor":
            period.anchors += (each for each in _published(line.text) if each < line.number)
        if begin <= datetime.fromisoformat(content.at) <= end:
            period.first = line.number if period.first is None else period.first
            period.last = line.number
    return period


def _published(text: bytes) -> Iterable[int]:
    keys = keys_of(text) or {}
    number = keys.get("number")
    return (number,) if keys.get("result") == "published" and type(number) is int else ()


def encode_statement(statement: PeriodStatement) -> bytes:
    """The statement as JSON for people and for the checker."""
    return msgspec.json.format(msgspec.json.encode(statement)) + b"\n"
