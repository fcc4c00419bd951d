"""The messages in which CEL hands over a parsed expression, as far as they are read here.

Field names and numbers are those of the CEL specification (`proto/cel/expr/syntax.proto`, package `cel.expr`). What is
not declared is passed over, as protobuf does with fields it does not know; of a map and of a comprehension only that
they stand there.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_F = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _F.TYPE_BOOL, "bytes": _F.TYPE_BYTES, "double": _F.TYPE_DOUBLE, "int32": _F.TYPE_INT32,
    "int64": _F.TYPE_INT64, "string": _F.TYPE_STRING, "uint64": _F.TYPE_UINT64,
}  # fmt: skip
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
"""Each message and its fields, `oneof: repeated type name = number`. A map is written as the entries that it is."""


def _class() -> Any:
    """The class of `ParsedExpr`, in a pool of its own: another package may have declared the same names."""
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
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _F.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"
    if one_of:
        if not message.oneof_decl:
            message.oneof_decl.add(name=one_of)
        field.oneof_index = 0  # no message here has two


ParsedExpr = _class()
"""A parsed expression: `expr`, and `source_info.positions`, which says where in the text each node stands."""
