"""The registry of document kinds, and their JSON Schemas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Literal, get_args, get_origin

from killswitch.policy.schema.account import AccountDocument, DeadManDocument, dead_man
from killswitch.policy.schema.cross_key_checks import Breach, policy, ranking
from killswitch.policy.schema.policy import API_VERSION, CorrelationGroupDocument, PolicyDocument, RankingDocument
from killswitch.policy.schema.route import RouteDocument, route
from killswitch.policy.schema.runbook import RunbookDocument
from killswitch.policy.schema.runbook import check as runbook
from killswitch.policy.schema.shape import AtLeastOne, Choice, Part, Scalar, fields, unwrap
from killswitch.policy.schema.unwinding import UnwindingDocument
from killswitch.policy.schema.unwinding_checks import unwinding

KINDS: Mapping[str, type[Part]] = {
    "Policy": PolicyDocument,
    "Account": AccountDocument,
    "Ranking": RankingDocument,
    "CorrelationGroup": CorrelationGroupDocument,
    "Runbook": RunbookDocument,
    "NotificationRoute": RouteDocument,
    "Unwinding": UnwindingDocument,
    "DeadMansSwitch": DeadManDocument,
}

AnyDocument = (
    PolicyDocument
    | AccountDocument
    | RankingDocument
    | CorrelationGroupDocument
    | RunbookDocument
    | RouteDocument
    | UnwindingDocument
    | DeadManDocument
)
"""One of the above."""

CHECKS: Mapping[str, Callable[[object], Iterator[Breach]]] = {
    "Policy": policy,
    "Ranking": ranking,
    "Runbook": runbook,
    "NotificationRoute": route,
    "Unwinding": unwinding,
    "DeadMansSwitch": dead_man,
}
"""What must hold between the keys of a kind, where anything must."""

BUILT_IN: Mapping[str, frozenset[str]] = {
    "Ranking": frozenset({"default", "killswitch-v6", "component-risk", "genesis"})
}
"""Names that are always there, so that no document may take them."""


Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(kind: str) -> Schema:
    """The JSON Schema of one kind of document; KeyError if there is no such kind."""
    return {"$schema": DIALECT, "$id": f"https://{API_VERSION}/{kind}.json", "title": kind, **_part(KINDS[kind])}


def schema_of_all() -> Schema:
    """One schema that takes a document of any kind, for an editor that is told nothing more."""
    cases = [
        {"if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}, "then": _part(part)}
        for kind, part in KINDS.items()
    ]
    return {
        "$schema": DIALECT,
        "$id": f"https://{API_VERSION}/all.json",
        "title": "Killswitch documents",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {"apiVersion": {"const": API_VERSION}, "kind": {"enum": list(KINDS)}},
        "allOf": cases,
    }


def _part(part: type[Part]) -> Schema:
    known = fields(part)
    made: Schema = {
        "type": "object",
        "properties": {key: _described(field.annotation) for key, field in known.items()},
        "additionalProperties": False,
    }
    required = [key for key, field in known.items() if field.required]
    if required:
        made["required"] = required
    if part.__doc__:
        made["description"] = part.__doc__
    return {**made, **part.SCHEMA}


def _described(annotation: Any) -> Schema:
    _, metadata = unwrap(annotation)
    words = [mark for mark in metadata if isinstance(mark, str)]
    made = _schema(annotation)
    return {**made, "description": words[-1]} if words else made


def _schema(annotation: Any) -> Schema:
    bare, metadata = unwrap(annotation)
    for mark in metadata:
        if isinstance(mark, Scalar):
            return dict(mark.json)
        if isinstance(mark, Choice):
            return {"oneOf": [_schema(shape) for shape in mark.shapes]}
    if isinstance(bare, type) and issubclass(bare, Part):
        return _part(bare)
    if get_origin(bare) is None:
        return dict(_PLAIN[bare])
    return _composed(bare, any(isinstance(mark, AtLeastOne) for mark in metadata))


def _composed(bare: Any, not_empty: bool) -> Schema:
    arguments = get_args(bare)
    if get_origin(bare) is Literal:
        return {"const": arguments[0]} if len(arguments) == 1 else {"enum": list(arguments)}
    if get_origin(bare) is tuple:
        return {"type": "array", "items": _described(arguments[0]), **({"minItems": 1} if not_empty else {})}
    return {"type": "object", "additionalProperties": _described(arguments[1])}


_PLAIN: Mapping[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    Decimal: {"type": "number"},
    object: {},
}
