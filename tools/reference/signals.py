"""Generates docs/reference/signals.md from the signal catalogue and the guides of its signals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isinf

from killswitch.signals.arguments import Argument, argument_text, example_text
from killswitch.signals.catalogue import CATALOGUE
from killswitch.signals.declaration import SignalSpec
from killswitch.signals.guides import FIELD_WORDS, GUIDES, Group
from tools.reference.markdown import fence, page, sentence, table

UNITS = {
    "fraction": "a fraction, written `4.5%` or `0.045`",
    "money": "money of the scope's currency, written `10000 USDT`",
    "seconds": "a time, written `30s`; a number in expressions is in seconds",
    "milliseconds": "a time, written `250ms`; a number in expressions is in milliseconds",
    "count": "a count, written as a plain number",
    "ratio": "a ratio, written as a plain number",
    "score": "a score, written as a plain number",
    "money per hour": "money of the scope's currency per hour, written as a plain number",
    "word": "one of its words",
    "truth": "true or false, written `is: true` in a threshold trigger",
}

INTRODUCTION = """\
A signal is a quantity computed from the history of snapshots, and it is an interval. **Known**: one number. **Partly
known**: between two bounds, with a reason. **Unknown**: any value, with a reason. A comparison is true or false only
if its result is the same for the whole interval; otherwise the trigger's [`on_unknown`](policy.md) applies.

`ksctl schema signals` prints the same catalogue. In a threshold trigger each argument of a signal is a separate key
(`{signal: equity.drawdown, window: 15m, …}`), in an expression the arguments are in brackets, in their order
(`equity.drawdown("15m")`). No argument has a default. A window of 15m at the time t covers [t − 15m, t], both ends
included. [Semantics](../semantics.md) has worked examples.

The numbers of the examples show how a threshold is written. They are no advice: what a book does on ordinary days
decides (`ksctl backtest`, `ksctl replay`)."""

GROUPS: Mapping[Group, tuple[str, str]] = {
    "loss": (
        "Loss",
        "What was lost or won: equity and its unit value, which no deposit or withdrawal moves, P&L, single positions, "
        "which side lost, and round trips.",
    ),
    "exposure": ("Exposure", "How large, concentrated and near to liquidation the book is."),
    "market": (
        "Market",
        "Prices of what is held or on the watch list: volatility, moves, order books, states, whether sources agree.",
    ),
    "venue": ("Venue", "How the venues answer, and what they do by themselves."),
    "system": ("System", "Orders, ticks, heartbeats, alerts, flags and the time of day."),
    "ownership": ("Ownership", "Declared hedges, and what no declared strategy owns."),
    "position": (
        "Single positions",
        "Evaluated for each position when a stage closes: for `close.where`, `close.all_if` and rankings, not for "
        "triggers.",
    ),
}

AGAIN = {
    "loss": "only after a new loss",
    "condition": "when it has been false and is true again, or after a new loss",
}
_COMPARISON = re.compile(r"(at_least|at_most|above|below|is): ")


def signals_page() -> str:
    """The page: the words of the field, an index, and every signal by its group."""
    words = [(word, _linked(signals)) for word, signals in FIELD_WORDS]
    parts = ["## By the field's word", table(("What it is called", "What measures it"), words), "## Index", _index()]
    for group, (title, meaning) in GROUPS.items():
        parts += [f"## {title} {{ #group-{group} }}", meaning]
        parts += [_entry(signal) for signal in CATALOGUE if GUIDES[signal.name].group == group]
    return page("Signals", INTRODUCTION, parts)


def _index() -> str:
    """The names of each group."""
    lines = []
    for group, (title, _) in GROUPS.items():
        names = [f"[`{each.name}`](#{_anchor(each.name)})" for each in CATALOGUE if GUIDES[each.name].group == group]
        lines.append(f"- **[{title}](#group-{group})**: {', '.join(names)}")
    return "\n".join(lines)


def _linked(text: str) -> str:
    """The text, in which the names of signals are links."""
    names = {signal.name for signal in CATALOGUE}
    return re.sub(
        r"`([^`]+)`",
        lambda found: f"[{found[0]}](#{_anchor(found[1])})" if found[1] in names else found[0],
        text,
    )


def _anchor(name: str) -> str:
    return name.replace(".", "-").replace("_", "-")


def _entry(signal: SignalSpec) -> str:
    written, guide = example_text(signal.name, signal.arguments), GUIDES[signal.name]
    arguments = [argument_text(each) for each in signal.arguments]
    facts = [
        f"- **False alarm**: {_linked(guide.false_alarm)}",
        f"- **Unit**: {UNITS.get(signal.unit, signal.unit)}{_range(signal)}",
        *([f"- **In an expression**: `{written}`"] if signal.arguments else ()),
        *(f"- **Argument** `{each.partition(': ')[0]}`: {each.partition(': ')[2]}" for each in arguments),
        f"- **Partly known**: {_when(signal.partly_known)}",
        f"- **Unknown**: {_when(signal.unknown)}",
    ]
    if signal.level == "scope":
        facts.append(f"- **The same level again**: {AGAIN[signal.measures]}")
    parts = [
        f"### `{signal.name}` {{ #{_anchor(signal.name)} }}",
        sentence(signal.meaning),
        fence(example(signal), "yaml"),
    ]
    return "\n\n".join([*parts, "\n".join(facts)])


def example(signal: SignalSpec) -> str:
    """How it is written in a trigger, or in a condition of `close`, with the examples of its arguments."""
    written = GUIDES[signal.name].example
    if signal.level == "position":
        return f"close: {{side: both, fraction: 100%, where: '{written}', where_unknown: keep}}"
    if _COMPARISON.match(written) is None:
        return f"when: '{written}'\non_unknown: hold"
    arguments = "".join(f"{each.key}: {_flow(each)}, " for each in signal.arguments)
    return f"{{signal: {signal.name}, {arguments}{written}, on_unknown: hold}}"


def _flow(argument: Argument) -> str:
    """The example of an argument as a value of a flow mapping."""
    return f"'{argument.example}'" if "," in argument.example else argument.example


def _range(signal: SignalSpec) -> str:
    """What its values lie between, as an addition to its unit."""
    least, most = signal.range
    if signal.type != "number":
        return ""
    if isinf(least) and isinf(most):
        return "; any number"
    return f"; at least {least:g}" if isinf(most) else f"; {least:g} to {most:g}"


def _when(words: str) -> str:
    return words if words.startswith("never") else f"when {words}"
