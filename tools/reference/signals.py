"""Generates docs/reference/signals.md from the signal catalogue."""

from __future__ import annotations

from math import isinf

from killswitch.signals.arguments import argument_text, example_text
from killswitch.signals.catalogue import CATALOGUE
from killswitch.signals.declaration import SignalSpec
from tools.reference.markdown import page, sentence

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
included. [Semantics](../semantics.md) has worked examples."""

LEVELS = {
    "scope": (
        "Of a scope",
        "Evaluated for the scope of a stage machine: an account, a venue or the portfolio. For triggers and resets.",
    ),
    "position": (
        "Of a position",
        "Evaluated for each position separately. For `close.where`, `close.all_if` and rankings, not for triggers.",
    ),
}

AGAIN = {
    "loss": "only after a new loss",
    "condition": "when it has been false and is true again, or after a new loss",
}


def signals_page() -> str:
    """The page: every signal, those of scopes before those of positions."""
    parts = []
    for level, (title, meaning) in LEVELS.items():
        parts += [f"## {title}", meaning]
        parts += [_entry(signal) for signal in CATALOGUE if signal.level == level]
    return page("Signals", INTRODUCTION, parts)


def _entry(signal: SignalSpec) -> str:
    written = example_text(signal.name, signal.arguments)
    arguments = [argument_text(each) for each in signal.arguments]
    facts = [f"- **Unit**: {UNITS.get(signal.unit, signal.unit)}"]
    if signal.level == "scope":
        facts.append(f"- **The same level again**: {AGAIN[signal.measures]}")
    facts += [
        *([f"- **Range**: {_range(signal)}"] if signal.type == "number" else ()),
        *(f"- **Argument** `{each.partition(': ')[0]}`: {each.partition(': ')[2]}" for each in arguments),
        f"- **Partly known**: {_when(signal.partly_known)}",
        f"- **Unknown**: {_when(signal.unknown)}",
    ]
    anchor = signal.name.replace(".", "-").replace("_", "-")
    return f"### `{written}` {{ #{anchor} }}\n\n{sentence(signal.meaning)}\n\n" + "\n".join(facts)


def _range(signal: SignalSpec) -> str:
    least, most = signal.range
    if isinf(least) and isinf(most):
        return "any number"
    return f"at least {least:g}" if isinf(most) else f"{least:g} to {most:g}"


def _when(words: str) -> str:
    return words if words.startswith("never") else f"when {words}"
