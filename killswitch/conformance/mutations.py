"""Answers in which one field is wrong, and the results that an adapter may return for them.

Every field of every answer is changed in turn: null, missing, another type, not a number, out of range, another sign,
an unknown word, an empty list, a list for an object, a repeated row. The snapshot of the unchanged answers decides what
is right: each fact is the same, or unknown. A position never vanishes, and never changes its side or size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict

from killswitch.model.snapshot import UNIT_FLOWS, AccountSnapshot, Fill, Flow, Order
from killswitch.model.venue import OrderReport

Path = tuple[str | int, ...]
WORD: Final = "nonsense"
MISSING: Final = object()
AGAIN: Final = object()
AS_NOTHING: Final = object()
"""Values that repeat the first row of a list at its end: unchanged, and with zeros for its numbers. They apply to
whichever answer is changed, since one route may answer about several markets."""
ROWS: Final = 2
"""Elements of a list that are changed; the others are like them."""
HUGE: Final = "1e3000000"
"""A number of ten characters that takes seconds to print or divide; a few more digits freeze a process."""
UNKNOWN_KINDS: Final = frozenset({"a word", "negative", "no number", "beyond measure"})
"""Changes that replace the word or number by which a row states its kind."""
LATER: Final = timedelta(seconds=120)
"""Largest difference between the times of two snapshots of the same facts."""
_YES_OR_NO: Final = frozenset({"true", "false", "yes", "no"})
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_TIMES: Final = frozenset(
    {"wallet_as_of", "positions_as_of", "orders_as_of", "marked_at", "fills_as_of", "flows_as_of"}
)
_NOT_COMPARED: Final = frozenset({"account", "venue", "market", "currency", "quality", "reason", "observed_at",
                                    "health", "row_lag_s"})  # fmt: skip
_ROWS: Final = frozenset({"positions", "orders", "fills", "flows", "balances", "instruments", "marks", "rates",
                          "liquidity", "corporate_actions"})  # fmt: skip
_PARTIAL: Final = frozenset({"instruments", "balances", "marks", "rates", "liquidity"})
"""Lists of which single rows may be missing; a position, an order or a fill may not."""
_SIGNED: Final = frozenset({"equity", "free", "unrealized", "unrealized_pnl", "realized_pnl", "fee", "wallet"})
"""Amounts that may be negative. So may the amount of a flow or a balance."""
_NAMES: Final = frozenset({"id", "client_order_id", "order", "fee_currency", "currency", "asset", "strategy", "type",
                           "symbol", "margin_mode"})  # fmt: skip
"""Fields that repeat the venue's own text, known or not."""


class Mutation(Struct, frozen=True):
    """One field of the answer to a `question`, at `path`, and its replacement."""

    question: str
    path: Path
    kind: str
    value: object

    def __str__(self) -> str:
        return f"{self.question} {'.'.join(map(str, self.path))} {self.kind}"

    def change(self, question: str, answer: Any) -> Any:
        """The answer with the field changed; the answer itself where it is to another question, or has no such
        field."""
        if question == self.question and not self.path:
            return _again(answer, self.value)
        return _replaced(answer, self.path, self.value) if question == self.question else answer


class WrongResult(Struct, frozen=True):
    """A wrong result of a call with a changed answer."""

    mutation: Mutation
    call: str
    faults: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.mutation} → {self.call}: {'; '.join(self.faults)}"


def mutations(answers: Mapping[str, Any], *, zeros: bool = False) -> list[Mutation]:
    """Every change of every field of these answers, which are JSON by question.

    `zeros`: also a zero for each number. A zero makes sense by itself, so a snapshot may accept it; an answer about an
    order states each fact in two ways, and then contradicts itself.
    """
    found = [
        Mutation(question, path, kind, value)
        for question, answer in sorted(answers.items())
        for path, old in _fields(answer, ())
        for kind, value in (*_instead(old, path), *([("zero", _zero(old))] if zeros and _zero(old) != old else ()))
    ]
    lists = [(question, answer) for question, answer in sorted(answers.items()) if isinstance(answer, list)]
    return found + [Mutation(question, (), kind, value) for question, rows in lists for kind, value in _twice(rows)]


def sample(found: Sequence[Mutation], most: int) -> list[Mutation]:
    """At most this many mutations, spread evenly; the same ones on every run."""
    step = max(1, -(-len(found) // most))
    return list(found[::step])


def _fields(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if path:
        yield path, value
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value[:ROWS])
    for name, inner in items:
        yield from _fields(inner, (*path, name))


def _instead(old: Any, path: Path) -> Iterator[tuple[str, object]]:
    if old is not None:
        yield "null", None
    if isinstance(path[-1], str):
        yield "missing", MISSING
    if isinstance(old, dict):
        yield from (("no fields", {}), ("a list", []), ("a word", WORD))
    elif isinstance(old, list):
        yield from (("an object", {}), ("a word", WORD), ("a list of nothing", [None]))
        if old:
            yield "empty", []
        yield from _twice(old)
    elif isinstance(old, bool) or str(old).lower() in _YES_OR_NO:
        yield from (("a word", WORD), ("an object", {}), ("a list", []))
    else:
        yield from (("a word", WORD), ("true", True), ("an object", {}), ("a list", []), ("nothing written", ""))
        if isinstance(old, int | float) or (isinstance(old, str) and _NUMBER.fullmatch(old)):
            is_text = isinstance(old, str)
            yield "no number", "NaN" if is_text else float("nan")
            yield "beyond measure", HUGE if is_text else 10**300
            if Decimal(str(old)):
                yield "negative", -old if isinstance(old, int | float) else str(-Decimal(old))


def _twice(rows: list[Any]) -> Iterator[tuple[str, object]]:
    if rows:
        yield "the same row twice", AGAIN
    if rows and isinstance(rows[0], dict):
        yield "a row again with zeros", AS_NOTHING


def _zero(value: Any) -> Any:
    """Zero in the form in which the number `value` is written; anything else unchanged."""
    if isinstance(value, str):
        return "0" if _NUMBER.fullmatch(value) and "." in value else value
    return type(value)(0) if isinstance(value, float) else value


def _replaced(value: Any, path: Path, new: object) -> Any:
    name, rest = path[0], path[1:]
    if isinstance(value, dict) and name in value:
        if not rest and new is MISSING:
            return {key: it for key, it in value.items() if key != name}
        return {**value, name: _replaced(value[name], rest, new) if rest else _again(value[name], new)}
    if isinstance(value, list) and isinstance(name, int) and name < len(value):
        changed = _replaced(value[name], rest, new) if rest else _again(value[name], new)
        return [*value[:name], changed, *value[name + 1 :]]
    return value


def _again(value: Any, new: object) -> object:
    """What replaces `value`: `new`, or its own rows followed by the first one again."""
    if new is not AGAIN and new is not AS_NOTHING:
        return new
    if not isinstance(value, list) or not value:
        return value
    first = value[0]
    if new is AS_NOTHING and isinstance(first, dict):
        first = {name: _zero(it) for name, it in first.items()}
    return [*value, first]


# Expected results


class ChangedAnswer(Struct, frozen=True):
    """One changed answer, and the venue's time at which it was read."""

    mutation: Mutation
    at: datetime


def faults(trial: ChangedAnswer, expected: AccountSnapshot, seen: AccountSnapshot) -> list[str]:
    """What is wrong in the snapshot `seen` of a changed answer; `expected` is that of the unchanged answers."""
    if seen.quality != "ok":
        return [] if seen.reason else [f"it is {seen.quality} without a reason"]
    found: list[str] = []
    if seen.positions is None and not seen.reason:
        found.append("positions are unknown without a reason")
    if seen.equity is None and expected.equity is not None and not seen.reason:
        found.append("equity is unknown without a reason")
    for name in AccountSnapshot.__struct_fields__:
        if name in _NOT_COMPARED or (name in ("positions", "fills") and _is_unlisted(expected, seen)):
            continue
        before, now = getattr(expected, name), getattr(seen, name)
        if name in _ROWS:
            found += rows_faults(trial, name, before, now)
        elif not _is_same(trial, name, before, now, later=name in _TIMES):
            found.append(f"{name} is {now}, and was {before}")
    return found


def _is_unlisted(expected: AccountSnapshot, seen: AccountSnapshot) -> bool:
    """Whether each holding that is no longer a position is in the balances without a price, and equity is unknown:
    nothing else is known of an asset without a market at its venue (ADR 0080), and nobody queries its fills."""
    if seen.equity is not None or not seen.reason:
        return False
    unpriced = [abs(it.amount) for it in seen.balances or () if it.price is None]
    missing = {it.key: it for it in expected.positions or ()}
    for held in seen.positions or ():
        if missing.pop(held.key, held).contracts != held.contracts:
            return False
    return bool(missing) and all(it.contracts in unpriced for it in missing.values())


def report_faults(trial: ChangedAnswer, expected: OrderReport, seen: OrderReport | None) -> list[str]:
    """What is wrong in the report of an order."""
    if seen is None:
        # An empty list means that there is no order.
        return [] if trial.mutation.kind == "empty" else ["the order is reported as nonexistent"]
    before, now = asdict(expected), asdict(seen)
    return [
        f"{name} is {value}, and was {before[name]}"
        for name, value in now.items()
        if not _is_same(trial, name, before[name], value) or (value is None and name in ("state", "filled", "amount"))
    ]


def rows_faults(
    trial: ChangedAnswer, what: str, expected: Sequence[Struct] | None, seen: Sequence[Struct] | None
) -> list[str]:
    """What is wrong in a list of rows."""
    if seen is None or expected is None:
        return []
    left, found = list(seen), []
    replacement = trial.mutation.value
    if what == "flows" and isinstance(replacement, str) and trial.mutation.kind in UNKNOWN_KINDS:
        # A row of an unknown kind may be left out, be profit or loss, or have that word in its id.
        kept = [
            it for it in left if replacement not in getattr(it, "id", "") and getattr(it, "kind", None) in UNIT_FLOWS
        ]
        return [f"flows: {it} is new" for it in kept if all(_differences(trial, row, it) for row in expected)]
    if what == "instruments":
        symbols = {getattr(row, "symbol", None) for row in expected}
        left = [it for it in left if getattr(it, "symbol", None) in symbols]
    for row in expected:
        like = next((it for it in left if not _differences(trial, row, it)), None)
        if like is not None:
            left.remove(like)
        elif what not in _PARTIAL and (trial.mutation.kind != "empty" or what == "positions"):
            # An empty list means that there are no rows of this kind.
            found.append(f"{what}: {_nearest(trial, row, left)}")
    # Single rules, prices and the like may be unknown; none may differ.
    if what in _PARTIAL:
        found += [f"{what}: {it} is new" for it in left if not _is_known_part(it, trial)]
    elif len(seen) > len(expected):
        found.append(f"{what}: {len(seen)} rows, and there were {len(expected)}")
    return found


def _nearest(trial: ChangedAnswer, row: Struct, left: Sequence[Struct]) -> str:
    """The differences to the most similar row."""
    if not left:
        return f"{row} is not there"
    like = min(left, key=lambda it: len(_differences(trial, row, it)))
    actual, before = asdict(like), asdict(row)
    return ", ".join(f"{it} is {actual[it]}, and was {before[it]}" for it in _differences(trial, row, like))


def _is_known_part(row: Struct, trial: ChangedAnswer) -> bool:
    """Whether the row is a balance in an asset that the venue has named with the changed word."""
    return getattr(row, "asset", None) == WORD and trial.mutation.value == WORD


def _differences(trial: ChangedAnswer, expected: Struct, seen: Struct) -> list[str]:
    signed = isinstance(expected, Flow) or type(expected).__name__ == "Balance"
    needed = {"contracts", "side", "amount", "inverse"} if isinstance(expected, Order | Fill) else {"contracts", "side"}
    actual = asdict(seen)
    return [
        name
        for name, before in asdict(expected).items()
        if not _is_same(trial, "equity" if signed and name == "amount" else name, before, actual[name], later=True)
        or (before is not None and actual[name] is None and name in needed)
    ]


def _is_same(trial: ChangedAnswer, name: str, before: object, now: object, *, later: bool = False) -> bool:
    if now is None or before == now or (name == "complete" and now is False):
        return True
    if isinstance(now, datetime):
        return later and (abs(now - trial.at) <= LATER or (isinstance(before, datetime) and abs(now - before) <= LATER))
    if name == "type" and isinstance(now, str) and now.startswith("trigger_"):
        return True  # the kind is unknown
    if name in _NAMES and isinstance(now, str):
        return _is_echoed(trial, now)
    return trial.mutation.kind == "negative" and name in _SIGNED and isinstance(now, Decimal) and now.is_finite()


def _is_echoed(trial: ChangedAnswer, now: str) -> bool:
    """Whether a name contains the venue's own text."""
    value = trial.mutation.value
    if value is None or value is MISSING or isinstance(value, dict | list):
        return False
    return str(value).casefold() in now.casefold()


Change = Callable[[str, Any], Any]
"""Function from (question, answer) to the answer that the adapter receives."""
