"""Adapter of Google's CEL parser: parses expression text to a syntax tree, or to mistakes with their places.

Importing this module loads a native extension and protobuf; only policies with expressions need it.

Field names and numbers are those of the CEL specification (`proto/cel/expr/syntax.proto`, package `cel.expr`).
Undeclared fields are ignored, as protobuf ignores unknown fields; maps and comprehensions are declared without fields.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from cel_expr_python import cel
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from msgspec import Struct

_MISTAKE = r"ERROR: <input>:(-?\d+):(-?\d+): (.*)"
_TRAILER = r" \[[A-Z_]+\]$"


class Mistake(Struct, frozen=True):
    """A mistake reported by CEL, with its offset in code points, or None without a place."""

    offset: int | None
    text: str


class CelError(Exception):
    """CEL rejects the text; `mistakes` has at least one entry."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("; ".join(mistake.text for mistake in mistakes))
        self.mistakes = mistakes


class Parsed(Struct, frozen=True):
    """A syntax tree (`cel.expr.Expr`), and the offset of each node in the text."""

    tree: Any
    positions: dict[int, int]


@lru_cache(maxsize=1024)  # the books of a desk have the same conditions; a tree is only read
def parse(text: str) -> Parsed:
    """Parse `text` without checking names and types; CelError for syntax errors and too deep nesting."""
    try:
        container = _ENVIRONMENT.compile(text, disable_check=True).serialize()
        parsed = ParsedExpr.FromString(AnyMessage.FromString(container).value)
    except RuntimeError as refusal:
        raise CelError(_mistakes(str(refusal), text)) from None
    except DecodeError:
        raise CelError((Mistake(None, "nested too deeply"),)) from None
    return Parsed(parsed.expr, {entry.key: entry.value for entry in parsed.source_info.positions})


_ENVIRONMENT = cel.NewEnv()


def _mistakes(refusal: str, text: str) -> tuple[Mistake, ...]:
    lines = text.split("\n")
    found = []
    for match in re.finditer(_MISTAKE, refusal):
        line, column, message = int(match[1]), int(match[2]), re.sub(_TRAILER, "", match[3])
        offset = sum(len(passed) + 1 for passed in lines[: line - 1]) + column - 1 if line > 0 else None
        found.append(Mistake(offset, message))
    return tuple(dict.fromkeys(found)) or (Mistake(None, re.sub(_TRAILER, "", refusal)),)


_F = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "cel.expr"

_MESSAGES: dict[str, tuple[str, ...]] = {
    "ParsedExpr": ("Expr expr = 2", "SourceInfo source_info = 3"),
    "Expr": (
        "int64 id = 2",
        "expr_kind: Constant const_expr = 3",
        "expr_kind: Ident ident_expr = 4",
        "expr_kind: Select select_expr = 5",
        "expr_kind: Call call_expr = 6",
        "expr_kind: CreateList list_expr = 7",
        "expr_kind: CreateStruct struct_expr = 8",
        "expr_kind: Comprehension comprehension_expr = 9",
    ),
    "Ident": ("string name = 1",),
    "Select": ("Expr operand = 1", "string field = 2", "bool test_only = 3"),
    "Call": ("Expr target = 1", "string function = 2", "repeated Expr args = 3"),
    "CreateList": ("repeated Expr elements = 1",),
    "CreateStruct": (),
    "Comprehension": (),
    "Constant": (
        "constant_kind: int32 null_value = 1",
        "constant_kind: bool bool_value = 2",
        "constant_kind: int64 int64_value = 3",
        "constant_kind: uint64 uint64_value = 4",
        "constant_kind: double double_value = 5",
        "constant_kind: string string_value = 6",
        "constant_kind: bytes bytes_value = 7",
    ),
    "SourceInfo": ("repeated Position positions = 4",),
    "Position": ("int64 key = 1", "int32 value = 2"),
}
"""Messages and their fields, `oneof: repeated type name = number`. A map is declared by its entries."""


def _class() -> Any:
    """Create the class of `ParsedExpr` in a separate pool, because another package may declare the same names."""
    file = descriptor_pb2.FileDescriptorProto(name="syntax.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in fields:
            _declare(message, text)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.ParsedExpr"))


def _declare(message: descriptor_pb2.DescriptorProto, text: str) -> None:
    declared, _, number = text.partition(" = ")
    one_of, _, declared = declared.rpartition(": ")
    *repeated, kind, name = declared.split()
    field = message.field.add(name=name, number=int(number))
    field.label = _F.LABEL_REPEATED if repeated else _F.LABEL_OPTIONAL
    field.type = getattr(_F, f"TYPE_{kind.upper()}", _F.TYPE_MESSAGE)
    if field.type == _F.TYPE_MESSAGE:
        field.type_name = f".{_PACKAGE}.{kind}"
    if one_of:
        if not message.oneof_decl:
            message.oneof_decl.add(name=one_of)
        field.oneof_index = 0  # no message here has two


ParsedExpr = _class()
"""A parsed expression: `expr`, and `source_info.positions`, the offsets of its nodes."""
