"""The page and the record of `ksctl size`: one size, or one for each market of a book."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from msgspec import Struct

from killswitch.render.document import Facts, Page, Section, Table
from killswitch.render.formats import exact, rounded_duration
from killswitch.risk.sizing.answer import Size, SizingInput

FORMAT: Final = "killswitch.size/v1"


class SizeRecord(Struct, frozen=True):
    """The answer as JSON: one size for each market of the request."""

    sizes: tuple[Size, ...]
    as_of: datetime
    format: str = FORMAT


def size_page(record: SizeRecord) -> Page:
    """What to hold, what bounds it, and what it was computed from; the inputs of a book are listed once."""
    sections = [Section(each.symbol, (Facts(tuple(_facts(each))),)) for each in record.sizes]
    if len(record.sizes) > 1:
        sections.append(Section("Book", (Facts(tuple(_book(record.sizes))),)))
    inputs = tuple({(it.name, it.source, it.value): it for each in record.sizes for it in each.inputs}.values())
    if inputs:
        sections.append(Section("Inputs", (_inputs(inputs),)))
    return Page("Size", sections=tuple(sections))


def is_known(sizes: Sequence[Size]) -> bool:
    """Whether every size is known."""
    return all(each.contracts is not None for each in sizes)


def _facts(size: Size) -> Iterator[tuple[str, ...]]:
    if size.contracts is None:
        yield "size", f"unknown: {size.unknown}"
    else:
        yield "size", f"{exact(size.contracts)} contracts"
        if size.quantity != size.contracts:
            yield "in base units", _short(size.quantity)
        yield "notional", _short(size.notional)
        yield "leverage", "unknown" if size.leverage is None else f"{float(size.leverage):.4g}"
        yield "bound by", size.bound_by
    yield "method", size.method
    yield from size.details


def _book(sizes: Sequence[Size]) -> Iterator[tuple[str, ...]]:
    """The gross of the book, which the leverage cap is for; unknown where a size is."""
    notionals = [each.notional for each in sizes]
    leverages = [each.leverage for each in sizes]
    gross = None if None in notionals else sum(filter(None, notionals), Decimal(0))
    leverage = None if None in leverages else sum(filter(None, leverages), Decimal(0))
    yield "gross", _short(gross)
    yield "leverage", "unknown" if leverage is None else f"{float(leverage):.4g}"


def _short(value: object) -> str:
    """A number with at most ten digits that say something; a quotient has no last one."""
    return "unknown" if value is None else f"{float(str(value)):,.10g}"


def _inputs(inputs: Sequence[SizingInput]) -> Table:
    rows = tuple(
        (
            each.name,
            f"unknown: {each.unknown}" if each.value is None else exact(each.value.normalize()),
            each.source,
            "-" if each.age is None else rounded_duration(timedelta(seconds=each.age)),
        )
        for each in inputs
    )
    return Table(("input", "value", "source", "age"), rows)
