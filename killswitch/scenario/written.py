"""Writes a scenario as YAML, as a person would: what is not needed is left out, and repeated values are one item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import groupby
from math import isinf
from textwrap import wrap

from msgspec import Struct

from killswitch.scenario.given_signals import GivenValue
from killswitch.signals.arguments import span

WIDTH = 110
"""Characters of a line of a comment."""


class WrittenPosition(Struct, frozen=True):
    """A position; `contracts` and `price` have a text for each step."""

    symbol: str
    side: str
    contracts: tuple[str, ...]
    price: tuple[str, ...]


class WrittenScenario(Struct, frozen=True):
    """What the file states. `times` are microseconds; series have one value for each of them.

    `signals`: signal → its values; those of texts are texts. `expect`: each expectation as keys and values.
    """

    name: str
    comments: tuple[str, ...]
    policy: str
    starts: str
    times: tuple[int, ...]
    account: str
    venue: str
    market: str
    currency: str
    equity: tuple[Decimal, ...]
    positions: tuple[WrittenPosition, ...]
    signals: tuple[tuple[str, tuple[GivenValue, ...]], ...]
    expect: tuple[tuple[tuple[str, str], ...], ...]
    pushes: tuple[int, ...] = ()


def scenario_yaml(written: WrittenScenario) -> str:
    """The document, with its comments above it."""
    return "\n".join(_lines(written)) + "\n"


def _lines(written: WrittenScenario) -> Iterator[str]:
    for comment in written.comments:
        yield from (f"# {line}".rstrip() for line in wrap(comment, WIDTH) or [""])
    yield from ("apiVersion: killswitch.dev/v1", "kind: Scenario", f"metadata: {{name: {written.name}}}", "spec:")
    yield f"  policies: [{written.policy}]"
    yield f"  starts: {written.starts}"
    yield f"  times: [{', '.join(map(span, written.times))}]"
    if written.pushes:
        yield f"  pushes: [{', '.join(map(span, written.pushes))}]"
    yield from ("  accounts:", f"    {written.account}:", f"      venue: {written.venue}")
    yield from (f"      market: {written.market}", f"      currency: {written.currency}")
    yield f"      equity: {series([f'{value:f}' for value in written.equity])}"
    if not written.positions:
        yield "      positions: []"
    else:
        yield "      positions:"
        for each in written.positions:
            keys = f'symbol: "{each.symbol}", side: {each.side}, contracts: {series(each.contracts)}'
            yield f"        - {{{keys}, price: {series(each.price)}, amount_step: 0.001}}"
    if written.signals:
        yield "  signals:"
        for name, values in written.signals:
            quoted = name.replace("'", "''")
            yield f"    '{quoted}': '{series([value_text(each) for each in values])}'"
    if not written.expect:
        yield "  expect: []"
    else:
        yield "  expect:"
        for expectation in written.expect:
            yield f"    - {{{', '.join(f'{key}: {value}' for key, value in expectation)}}}"


def series(items: Sequence[str]) -> str:
    """The items with repetitions; a single one if all are equal."""
    groups = [(item, len(list(same))) for item, same in groupby(items)]
    if len(groups) == 1:
        return groups[0][0]
    return " ".join(item if count == 1 else f"{item}x{count}" for item, count in groups)


def value_text(value: GivenValue) -> str:
    """A value of a signal such that it is read as the same floats: `7%`, `0.05..0.1`, `unknown`."""
    if value.text is not None:
        return value.text
    if isinf(value.low) and isinf(value.high):
        return "unknown"
    if value.low == value.high:
        return _float_text(value.low)
    low, high = ("" if isinf(end) else _float_text(end) for end in (value.low, value.high))
    return f"{low}..{high}"


def _float_text(value: float) -> str:
    """A decimal that reads as this float; of a share between 0 and 1 the percentage, if it reads as the same."""
    exact = Decimal(repr(value))
    if 0 < abs(exact) < 1:
        percent = (exact * 100).normalize()
        if float(percent / 100) == value and len(f"{percent:f}") <= 8:
            return f"{percent:f}%"
    text = f"{exact:f}"
    return text.removesuffix(".0")
