"""freqtrade's strategy class, read as text: its literals. Nothing of it is run or imported.

What is a literal is read: numbers, texts, and lists and dictionaries of them. What is code, a hyperopt parameter
or inherited from another class has no value here, and the report names its line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from killswitch.operations.importing.report import ImportRefusedError, read_text

PROTECTIONS: Final = "protections"
BASE: Final = "IStrategy"
SETTINGS: Final = (
    "timeframe", "stoploss", "minimal_roi", "trailing_stop", "trailing_stop_positive", "trailing_stop_positive_offset",
    "trailing_only_offset_is_reached", "use_custom_stoploss", "can_short", "position_adjustment_enable",
    "max_entry_position_adjustment", "order_types", "order_time_in_force",
)  # fmt: skip
"""Attributes that are settings of trading; a configuration overrides most of them."""


class StrategyLiteral(Struct, frozen=True):
    """What is written at a line; `value` counts only if `is_literal`, else it is code."""

    line: int
    value: object = None
    is_literal: bool = True


class ProtectionText(Struct, frozen=True):
    """One protection: its entries by key. `code`: why it cannot be read; None if it can."""

    line: int
    entries: Mapping[str, StrategyLiteral]
    code: str | None = None


class StrategyClass(Struct, frozen=True):
    """The settings of a strategy. `code`: lines of what belongs to a setting and is code, each with its meaning."""

    name: str
    file: str
    line: int
    settings: Mapping[str, StrategyLiteral]
    protections: tuple[ProtectionText, ...]
    leverage: StrategyLiteral
    """The leverage of every entry: 1 without the callback."""
    code: tuple[tuple[int, str, str], ...] = ()
    """(line, key, what it is)."""


def read_strategy(path: Path, name: str | None) -> StrategyClass:
    """The strategy class of a file; with several, the one called `name`.

    ImportRefusedError for a file that is no Python, or that has no such class.
    """
    try:
        tree = ast.parse(read_text(path), str(path))
    except SyntaxError as error:
        raise ImportRefusedError(f"{path}:{error.lineno or 1}: not Python: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ImportRefusedError(f"{path}:1: cannot be read as Python: {error}") from error
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    candidates = [node for node in classes if node.name == name] if name is not None else [
        node for node in classes if any(_name(base) == BASE for base in node.bases)
    ]  # fmt: skip
    if len(candidates) != 1:
        known = ", ".join(node.name for node in classes) or "none"
        wanted = f"the class {name}" if name is not None else f"exactly one class that derives from {BASE}"
        raise ImportRefusedError(f"{path}:1: no strategy: {wanted} is wanted, and its classes are: {known}")
    return _strategy(str(path), candidates[0])


def _strategy(file: str, node: ast.ClassDef) -> StrategyClass:
    code = list(_code(node))
    bases = [_name(base) for base in node.bases]
    if bases != [BASE]:
        code.append(
            (node.lineno, "class", f"derives from {', '.join(bases) or 'nothing'}: what it inherits is not read")
        )
    protections: tuple[ProtectionText, ...] = ()
    written = _protections(node)
    if isinstance(written, ast.List | ast.Tuple):
        protections = tuple(_protection(each) for each in written.elts)
    elif written is not None:
        code.append((written.lineno, PROTECTIONS, "are made by code; only a literal list is read"))
    settings = {name: _literal(value) for name, value in _assigned(node) if name in SETTINGS}
    return StrategyClass(node.name, file, node.lineno, settings, protections, _leverage(node), tuple(code))


def _assigned(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """The attributes that the class body assigns, in their order."""
    for each in node.body:
        targets = (
            each.targets if isinstance(each, ast.Assign) else [each.target] if isinstance(each, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(each, ast.Assign | ast.AnnAssign) and each.value is not None:
                yield target.id, each.value


def _functions(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}


def _protections(node: ast.ClassDef) -> ast.expr | ast.stmt | None:
    """What the property returns, or the attribute has; the statement itself where that is not one expression."""
    function = _functions(node).get(PROTECTIONS)
    if function is not None:
        return _only_return(function) or function
    return dict(_assigned(node)).get(PROTECTIONS)


def _only_return(function: ast.FunctionDef) -> ast.expr | None:
    """The expression of a function that only returns one."""
    body = [each for each in function.body if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))]
    return body[0].value if len(body) == 1 and isinstance(body[0], ast.Return) else None


def _protection(node: ast.expr) -> ProtectionText:
    if not isinstance(node, ast.Dict):
        return ProtectionText(node.lineno, {}, "it is code; only a literal dictionary is read")
    entries: dict[str, StrategyLiteral] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        name = _literal(key) if key is not None else None
        if name is None or not isinstance(name.value, str):
            return ProtectionText(node.lineno, {}, "one of its keys is code")
        entries[name.value] = _literal(value)
    code = [f"{key} (line {value.line})" for key, value in entries.items() if not value.is_literal]
    return ProtectionText(node.lineno, entries, f"{', '.join(code)} is code" if code else None)


def _literal(node: ast.expr) -> StrategyLiteral:
    try:
        return StrategyLiteral(node.lineno, ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return StrategyLiteral(node.lineno, is_literal=False)


def _leverage(node: ast.ClassDef) -> StrategyLiteral:
    function = _functions(node).get("leverage")
    if function is None:
        return StrategyLiteral(node.lineno, 1)
    returned = _only_return(function)
    found = StrategyLiteral(function.lineno, is_literal=False) if returned is None else _literal(returned)
    is_number = isinstance(found.value, int | float) and not isinstance(found.value, bool) and found.value > 0
    return found if is_number else StrategyLiteral(function.lineno, is_literal=False)


_CALLBACKS: Final[Mapping[str, str]] = {
    "custom_stoploss": "a stop that is code; the strategy keeps it",
    "custom_exit": "exits that are code; the strategy keeps them",
    "custom_stake_amount": "the stake is code",
    "adjust_trade_position": "additions and partial exits are code",
    "leverage": "the leverage of an entry",
    "confirm_trade_entry": "a check of entries that is code; the strategy keeps it",
}


def _code(node: ast.ClassDef) -> Sequence[tuple[int, str, str]]:
    """Callbacks that decide what a setting would; entries and exits by signals are the strategy's own."""
    functions = _functions(node)
    return [
        (functions[name].lineno, name, meaning)
        for name, meaning in _CALLBACKS.items()
        if name in functions and not (name == "leverage" and _leverage(node).is_literal)
    ]


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else "code"
