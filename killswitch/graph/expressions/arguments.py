"""Arguments of signals as policies write them: by key in threshold triggers, by position in expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import isfinite
from typing import Any

from msgspec import Struct

from killswitch.graph.expressions.tree import is_literal
from killswitch.graph.problems import NO_FAULTY_DOCUMENTS, FaultyDocuments, Findings, Problem, unknown_name
from killswitch.policy.schema.part import MistakeError
from killswitch.policy.schema.scalars import Quantity, duration, venue_name
from killswitch.policy.schema.trigger import SignalOf, ThresholdTrigger
from killswitch.policy.yaml.source_map import Path
from killswitch.render.formats import count_of
from killswitch.signals.arguments import Argument, Declared, Relation, Value, end_text, example_text, in_key
from killswitch.signals.declaration import SignalSpec
from killswitch.signals.written_forms import FORMS, FormError

Written = int | float | str | Decimal
"""A value before its name is resolved."""


class Declarations(Struct, frozen=True):
    """What the documents of a policy set declare that arguments may name: kind of document → name → declaration."""

    by_kind: Mapping[str, Mapping[str, Declared]] = {}
    others: FaultyDocuments = NO_FAULTY_DOCUMENTS

    def resolve(self, argument: Argument, name: str) -> Declared | Problem:
        """The declaration, or the problem that there is none."""
        kind = argument.document or ""
        known = self.by_kind.get(kind, {})
        if name in known:
            return known[name]
        if self.others.can_have(kind, name):
            return Declared(name)  # that document has a mistake of its own, which is reported there
        return Problem("KS3038", *unknown_name(kind, name, [*argument.words, *known]))


NO_DECLARATIONS = Declarations()


def arguments_of_keys(
    spec: SignalSpec, written: ThresholdTrigger | SignalOf, path: Path, declared: Declarations, found: Findings
) -> tuple[Value, ...] | None:
    """The values of the arguments of `spec`; None if one is missing, superfluous or invalid, which is reported."""
    given = dict(written.given())
    values: list[Value] = []
    is_complete = True
    for argument in spec.arguments:
        if argument.key not in given:
            if not found.gaps.is_hole((*path, argument.key)):
                found.error("KS3002", (*path, "signal"), *_missing(spec, argument))
            is_complete = False
            continue
        value = _resolved(argument, _internal(argument, given.pop(argument.key)), declared)
        if isinstance(value, Problem):
            found.error(value.code, (*path, argument.key), value.message, value.fix)
            is_complete = False
        else:
            values.append(value)
    for key in given:
        found.error(
            "KS3003", (*path, key), f"`{spec.name}` takes no `{key}`", _without(spec, f"take `{key}` out"), key=True
        )
    if given or not is_complete:
        return None
    broken = contradiction(spec, values)
    if broken is not None:
        index, problem = broken
        found.error(problem.code, (*path, spec.arguments[index].key), problem.message, problem.fix)
        return None
    return tuple(values)


class InvalidCall(Struct, frozen=True):
    """A problem of a call, and the index of the argument that has it; None for the whole call."""

    problem: Problem
    index: int | None = None


def arguments_of_call(
    spec: SignalSpec, nodes: list[Any] | None, declared: Declarations
) -> tuple[Value, ...] | InvalidCall:
    """The values of the arguments that a call gives.

    `nodes`: the syntax trees of the arguments; None if the signal is written without brackets.
    """
    example, wanted = example_text(spec.name, spec.arguments), spec.arguments
    if nodes is not None and not wanted:
        return InvalidCall(Problem("KS3003", f"`{spec.name}` takes no arguments", f"write `{spec.name}`"))
    given = nodes or []
    if len(given) < len(wanted):
        message, _ = _missing(spec, wanted[len(given)])
        return InvalidCall(Problem("KS3002", message, f"write `{example}`"))
    if len(given) > len(wanted):
        message = f"`{spec.name}` takes {count_of(len(wanted), 'argument')}, and {len(given)} are given"
        return InvalidCall(Problem("KS3003", message, f"write `{example}`"), len(wanted))
    values: list[Value] = []
    for index, (argument, node) in enumerate(zip(wanted, given, strict=True)):
        literal = _of_literal(argument, node)
        if literal is None:
            fix = f"{_kind_words(argument)}: `{example}`"
            return InvalidCall(Problem("KS4005", f"this is no {argument.key} for `{spec.name}`", fix), index)
        value = _resolved(argument, literal, declared)
        if isinstance(value, Problem):
            return InvalidCall(value, index)
        values.append(value)
    broken = contradiction(spec, values)
    return tuple(values) if broken is None else InvalidCall(broken[1], broken[0])


def contradiction(spec: SignalSpec, values: Sequence[Value]) -> tuple[int, Problem] | None:
    """The first argument whose declared relation to another one does not hold, by its index; None if all hold.

    Where samples do not fit into a window, it is the window that is too short.
    """
    keys = [each.key for each in spec.arguments]
    for index, argument in enumerate(spec.arguments):
        for relation in argument.relations:
            place = keys.index(relation.to) if relation.to in keys else None
            if place is not None and not relation.holds(values[index], values[place]):
                at = place if relation.kind == "twice_in" else index
                return at, _contradiction(spec, relation, argument, values[index], spec.arguments[place], values[place])
    return None


def _contradiction(
    spec: SignalSpec, relation: Relation, argument: Argument, value: Value, other: Argument, to: Value
) -> Problem:
    """The problem that the relation of `argument` to `other` does not hold."""
    shown, shown_other = in_key(argument, value), in_key(other, to)
    match relation.kind:
        case "twice_in":
            message = f"two returns of {shown} do not fit into {shown_other}, so that `{spec.name}` is never known"
            least = in_key(other, 2 * value) if isinstance(value, int) else shown
            return Problem("KS3017", message, f"write {least} or more, or a shorter `{argument.key}`")
        case "below":
            message = f"`{argument.key}` is {shown}, which is not below `{other.key}`, {shown_other}"
            return Problem("KS3039", message, f"write a smaller `{argument.key}`, or a greater `{other.key}`")
        case "other_than":
            message = f"`{argument.key}` is `{shown}`, as `{other.key}` is, so that `{spec.name}` never changes"
            words = ", ".join(f"`{word}`" for word in argument.words if word != to)
            return Problem("KS3039", message, f"write another one: {words}" if words else "write another one")


def _missing(spec: SignalSpec, argument: Argument) -> tuple[str, str]:
    if argument.key == "window":
        return f"`{spec.name}` is taken over a window, and none is given", f"add `window: {argument.example}`"
    return f"`{spec.name}` needs `{argument.key}`, and none is given", f"add `{argument.key}: {argument.example}`"


def _without(spec: SignalSpec, fix: str) -> str:
    keys = ", ".join(f"`{each.key}`" for each in spec.arguments)
    return f"{fix}; it takes {keys}" if keys else fix


def _internal(argument: Argument, written: object) -> Written | None:
    """A value of a document as the reader of a signal gets it; None if it is of another kind."""
    match written:
        case Quantity(unit="money", value=value):
            return value
        case Quantity():
            return None
        case Decimal():
            return float(written)
        case int() | str():
            return written
        case _:
            return None


def _of_literal(argument: Argument, node: Any) -> Written | None:
    """A value of an expression; None if it is of another kind."""
    if argument.kind in ("duration", "word", "name", "reference", *FORMS):
        if not is_literal(node, "string_value"):
            return None
        text = str(node.const_expr.string_value)
        try:
            return duration(text) if argument.kind == "duration" else venue_name(text)
        except MistakeError:  # its message is about a document value; here the fix is the whole call
            return None
    sign = 1
    if node.WhichOneof("expr_kind") == "call_expr" and node.call_expr.function == "-_":
        sign, node = -1, node.call_expr.args[0]
    if not is_literal(node, "double_value", "int64_value"):
        return None
    number = sign * getattr(node.const_expr, node.const_expr.WhichOneof("constant_kind"))
    if not isfinite(number):
        return None
    return Decimal(str(number)) if argument.kind == "money" else float(number)


def _resolved(argument: Argument, written: Written | None, declared: Declarations) -> Value | Problem:
    """The value that the reader of a signal gets, or the problem of what is written."""
    if written is None:
        return Problem("KS3037", f"this is no value of `{argument.key}`", f"write it as {argument.example}")
    if mistake := _mistake(argument, written):
        return Problem("KS3037", *mistake)
    if argument.document is None or not isinstance(written, str) or written in argument.words:
        return written
    return declared.resolve(argument, written)


def _mistake(argument: Argument, value: Written) -> tuple[str, str] | None:
    """Message and fix for a value that is not one of the argument's words, not of its form, or out of its range."""
    if argument.kind == "word" and value not in argument.words:
        return unknown_name(argument.key, str(value), argument.words)
    if (meant := dict(argument.mistaken).get(str(value))) is not None:
        return f"`{value}` is no value of `{argument.key}`, and would be a symbol that nobody trades", f"write {meant}"
    if (parse := FORMS.get(argument.kind)) is not None:
        try:
            parse(str(value))
        except FormError as error:
            return error.message, error.fix
    if argument.range is not None and not isinstance(value, str):
        least, most = argument.range
        if not least <= value <= most:
            bounds = [end_text(argument, end) for end in argument.range if isfinite(end)]
            words = f"from {bounds[0]} to {bounds[1]}" if len(bounds) == 2 else f"at least {bounds[0]}"
            return f"`{in_key(argument, value)}` is out of the range of `{argument.key}`", f"write a value {words}"
    return None


def _kind_words(argument: Argument) -> str:
    match argument.kind:
        case "duration":
            return f"a {argument.key} is one text with a number and its unit"
        case "word":
            return f"a {argument.key} is one of {', '.join(argument.words)}, in quotes"
        case "name" | "reference":
            article = "an" if argument.key[0] in "aeiou" else "a"
            return f"{article} {argument.key} is a name in quotes"
        case "time" | "zone" | "days" | "labels":
            return f"`{argument.key}` is a text in quotes"
        case _:
            return f"a {argument.key} is a number"
