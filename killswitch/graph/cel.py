"""The one door to Google's CEL: expression text in, syntax tree or the places of its mistakes out.

Importing this module loads a native extension and protobuf; only policies that hold an expression need it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from cel_expr_python import cel
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from killswitch.graph.cel_messages import ParsedExpr
from killswitch.model.record import Record, record
from killswitch.signals.catalogue import CATALOGUE

_MISTAKE = r"ERROR: <input>:(-?\d+):(-?\d+): (.*)"
_TRAILER = r" \[[A-Z_]+\]$"


@record
class Mistake(Record):
    """What CEL says is wrong, and where: an offset in code points, or None where it names no place."""

    offset: int | None
    text: str


class CelError(Exception):
    """CEL refuses the text; `mistakes` says why, at least once."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("; ".join(mistake.text for mistake in mistakes))
        self.mistakes = mistakes


@record
class Parsed(Record):
    """The syntax tree (`cel.expr.Expr`), and where in the text each node stands."""

    tree: Any
    positions: dict[int, int]


def parse(text: str) -> Parsed:
    """The tree of `text`, names and types unchecked; CelError for a mistake of syntax or an abyss of nesting."""
    try:
        container = _environment().compile(text, disable_check=True).serialize()
        parsed = ParsedExpr.FromString(AnyMessage.FromString(container).value)
    except RuntimeError as refusal:
        raise CelError(_mistakes(str(refusal), text)) from None
    except DecodeError:
        raise CelError((Mistake(None, "nested too deeply"),)) from None
    return Parsed(parsed.expr, {entry.key: entry.value for entry in parsed.source_info.positions})


def result_type(text: str) -> str:
    """The type that `text` evaluates to, in CEL's words (`BOOL`); CelError where types do not fit."""
    try:
        return str(_environment().compile(text).return_type().name())
    except RuntimeError as refusal:
        raise CelError(_mistakes(str(refusal), text)) from None


@cache
def _environment() -> Any:
    """Every signal of the catalogue: a function of its window where it takes one, else a variable."""
    types = {"number": cel.Type.DOUBLE, "text": cel.Type.STRING}
    return cel.NewEnv(
        variables={spec.name: types[spec.type] for spec in CATALOGUE if not spec.windowed},
        functions=[
            cel.FunctionDecl(
                spec.name, [cel.Overload(spec.name.replace(".", "_"), types[spec.type], [cel.Type.STRING])]
            )
            for spec in CATALOGUE
            if spec.windowed
        ],
    )


def _mistakes(refusal: str, text: str) -> tuple[Mistake, ...]:
    lines = text.split("\n")
    found = []
    for match in re.finditer(_MISTAKE, refusal):
        line, column, said = int(match[1]), int(match[2]), re.sub(_TRAILER, "", match[3])
        offset = sum(len(passed) + 1 for passed in lines[: line - 1]) + column - 1 if line > 0 else None
        found.append(Mistake(offset, said))
    return tuple(dict.fromkeys(found)) or (Mistake(None, re.sub(_TRAILER, "", refusal)),)
