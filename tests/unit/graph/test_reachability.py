"""Which stages are out of reach and which levels are not stricter; and which only appear so."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.graph.compile import compile_policies
from killswitch.policy.loader import load

HEAD = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: example}
spec:
  mode: observe
  scope: {each: account, match: {currency: USDT}}
  max_gap: 10m
"""


def codes(folder: Path, triggers: dict[str, str], stages: list[tuple[int, str]]) -> list[str]:
    """Codes of a policy whose triggers are `name: keys`, and whose stages are (level, `any: […]`)."""
    lines = ["  triggers:", *(f"    {name}: {{{keys}}}" for name, keys in triggers.items()), "  stages:"]
    for number, (level, fires) in enumerate(stages):
        lines.append(f"    - {{name: s{number}, level: {level}, {fires}, cooldown: 1h, reset: manual, actions: []}}")
    (folder / "p.yaml").write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    loaded = load([folder])
    assert loaded.diagnostics == ()
    return [diagnostic.code for diagnostic in compile_policies(loaded.documents)[1]]


def fall(at_least: str, confirm: str = "0s", window: str = "15m", unknown: str = "hold") -> str:
    return f"signal: equity.drawdown, window: {window}, at_least: {at_least}, confirm: {confirm}, on_unknown: {unknown}"


def equity(comparison: str) -> str:
    return f"signal: equity.value, {comparison}, on_unknown: hold"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (fall("5%"), fall("10%"), []),
        (fall("10%"), fall("5%"), ["KS3022"]),
        (fall("5%"), fall("5%"), ["KS3022"]),
        (fall("5%", "2m"), fall("5%", "1m"), ["KS3022"]),
        (fall("5%", "1m"), fall("5%", "2m"), ["KS5004"]),
        (fall("5%", "1m"), fall("4%", "9m"), ["KS3022"]),
        (fall("5%", window="1h"), fall("5%"), []),
        (fall("5%"), "when: 'equity.drawdown(\"15m\") > 0.05', on_unknown: hold", []),
        (fall("5%"), "when: '0.05 <= equity.drawdown(\"15m\")', on_unknown: hold", ["KS3022"]),
        (fall("5%", "3 ticks"), fall("5%", "3 ticks"), ["KS5005", "KS3022", "KS5005"]),
        (fall("5%", "3 ticks"), fall("5%", "4 ticks"), ["KS5005", "KS5004", "KS5005"]),
        (fall("5%", "3 ticks"), fall("5%", "2m"), ["KS5005", "KS5004"]),
        (equity("below: 500 USDT"), equity("below: 400 USDT"), []),
        (equity("below: 500 USDT"), equity("at_most: 500 USDT"), ["KS3022"]),
        (equity("below: 500 USDT"), equity("above: 900 USDT"), []),
    ],
)  # fmt: skip
def test_a_higher_level_needs_a_stricter_threshold(low: str, high: str, expected: list[str], tmp_path: Path) -> None:
    """On one signal, window and direction the higher level's threshold must be harder to reach."""
    assert codes(tmp_path, {"low": low, "high": high}, [(1, "any: [low]"), (2, "any: [high]")]) == expected


CASES: dict[str, tuple[dict[str, str], list[tuple[int, str]], list[str]]] = {
    "a conjunction is stricter than its part": (
        {"a": fall("5%"), "b": "when: 'exposure.leverage > 3', on_unknown: hold"},
        [(1, "any: [a]"), (2, "all: [a, b]")],
        [],
    ),
    "a part of a conjunction at a higher level leaves it nothing": (
        {"a": fall("5%"), "b": "when: 'exposure.leverage > 3', on_unknown: hold"},
        [(1, "all: [a, b]"), (2, "any: [a]")],
        ["KS3021"],
    ),
    "one shared trigger of two leaves the other": (
        {"a": fall("5%"), "b": "when: 'exposure.leverage > 3', on_unknown: hold"},
        [(1, "any: [a, b]"), (2, "any: [a]")],
        [],
    ),
    "any and all of a stage are both needed": (
        {"a": fall("5%"), "b": fall("7%", window="1h"), "c": "when: 'exposure.leverage > 3', on_unknown: hold"},
        [(1, "any: [a, b], all: [c]"), (2, "any: [c]")],
        ["KS3021"],
    ),
    "the same expression twice": (
        {
            "a": "when: 'venue.age > 3 && venue.malformed > 1', confirm: 2m, on_unknown: hold",
            "b": "when: 'venue.age > 3.0 && venue.malformed > 1.0', confirm: 1m, on_unknown: hold",
        },
        [(1, "any: [a]"), (2, "any: [b]")],
        ["KS3021"],
    ),
    "the same expression with a longer confirmation above": (
        {
            "a": "when: 'venue.age > 3 && venue.malformed > 1', confirm: 1m, on_unknown: hold",
            "b": "when: 'venue.age > 3.0 && venue.malformed > 1.0', confirm: 2m, on_unknown: hold",
        },
        [(1, "any: [a]"), (2, "any: [b]")],
        [],
    ),
    "a lower level that unknown trips is in reach": (
        {
            "a": "when: 'venue.age > 3 && venue.malformed > 1', on_unknown: trip",
            "b": "when: 'venue.age > 3 && venue.malformed > 1', on_unknown: hold",
        },
        [(1, "any: [a]"), (2, "any: [b]")],
        [],
    ),
    "a contradiction that unknown can trip": (
        {"a": fall("5%", unknown="trip"), "b": "when: 'equity.drawdown(\"15m\") < 0.03', on_unknown: hold"},
        [(1, "all: [a, b]")],
        [],
    ),
    "two sides that meet in one value": (
        {"a": fall("5%"), "b": "when: 'equity.drawdown(\"15m\") <= 0.05', on_unknown: hold"},
        [(1, "all: [a, b]")],
        [],
    ),
    "two sides that just miss each other": (
        {"a": fall("5%"), "b": "when: 'equity.drawdown(\"15m\") < 0.05', on_unknown: hold"},
        [(1, "all: [a, b]")],
        ["KS3021"],
    ),
    "a stage out of reach hides no other": (
        {"never": "when: 'equity.drawdown(\"15m\") > 1', on_unknown: hold", "a": fall("5%")},
        [(1, "any: [a]"), (2, "all: [never, a]")],
        ["KS5003", "KS3021"],
    ),
    "an unknown name keeps the judge silent": (
        {"a": fall("5%")},
        [(1, "any: [a]"), (2, "any: [a, b]")],
        ["KS3010"],
    ),
}


@pytest.mark.parametrize(("triggers", "stages", "expected"), CASES.values(), ids=CASES)
def test_a_stage_must_be_reachable(
    triggers: dict[str, str], stages: list[tuple[int, str]], expected: list[str], tmp_path: Path
) -> None:
    """Only a stage that no values at all can fire is refused."""
    assert codes(tmp_path, triggers, stages) == expected
