"""Rules of a desk: a file of CEL expressions over documents, each true where something is wrong.

An expression sees `doc`, the document as written; `item` and `key`, each value below `each` with its key or index; and
`docs`, all documents of the set. `number(x)` is the number of `4.5%`, `10000 USDT` or 3; `seconds(x)` that of `1h30m`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, get_origin

from msgspec import Struct
from pydantic import Field

from killswitch.policy.diagnostics.diagnostic import Diagnostic, Severity, diagnostic
from killswitch.policy.kinds import KINDS
from killswitch.policy.lint.rule import LintFinding
from killswitch.policy.loader import Document
from killswitch.policy.schema.document import ApiVersion
from killswitch.policy.schema.part import (
    AtLeastOne,
    MistakeError,
    Part,
    Scalar,
    below,
    is_part,
    keys_of,
    shapes,
    unwrap,
)
from killswitch.policy.schema.scalars import Text, pattern_json, quantity, quoted, written_micros
from killswitch.policy.schema.validation import closest, validate
from killswitch.policy.yaml.files import texts
from killswitch.policy.yaml.masked_text import MaskedText
from killswitch.policy.yaml.parser import YamlProblem, parse, plain_value
from killswitch.policy.yaml.source_map import Path, SourceMap

_CODE = r"[A-Z][A-Z-]{0,15}[0-9]{1,4}"


def rule_code(value: object) -> str:
    """A code of a desk's rule: capitals and a number, such as DESK12; KS is reserved."""
    if isinstance(value, str) and re.fullmatch(_CODE, value) and not value.startswith("KS"):
        return value
    fix = "write capitals and a number, such as DESK12; codes that begin with KS are built in"
    raise MistakeError("KS7280", f"{quoted(value)} is not a code for a rule", fix)


def document_kind_name(value: object) -> str:
    """A kind of document."""
    if isinstance(value, str) and value in KINDS:
        return value
    raise MistakeError("KS7280", f"{quoted(value)} is not a kind of document", f"write one of {', '.join(KINDS)}")


class OwnRule(Part):
    """A rule of a desk."""

    code: Annotated[str, Scalar(rule_code, pattern_json(_CODE, "DESK12"))]
    """The code, for `# ksctl: ignore` and for programs; unique."""
    severity: Literal["warning", "error"] = "warning"
    """`error` lets `lint` exit 1. Left out: warning."""
    kinds: Annotated[
        tuple[Annotated[str, Scalar(document_kind_name, {"enum": list(KINDS)})], ...], AtLeastOne()
    ] = ("Policy",)  # fmt: skip
    """The kinds of documents that it checks. Left out: policies."""
    each: Text | None = None
    """The path of a list or mapping, such as `spec.stages`: each value in it is an `item`. Left out: only the document.
    """
    when: Text
    """The expression, true where something is wrong."""
    message: Text
    """What is wrong."""
    fix: Text
    """What to write instead."""


class OwnRulesDocument(Part):
    """A file of rules."""

    api_version: Annotated[ApiVersion, Field(alias="apiVersion")]
    kind: Literal["LintRules"]
    rules: Annotated[tuple[OwnRule, ...], AtLeastOne()]


class CompiledRule(Struct, frozen=True):
    """A rule with its program. `evaluate` takes the variables and returns CEL's value."""

    rule: OwnRule
    program: Any


class OwnRules:
    """The rules of all files; the expressions are compiled once."""

    def __init__(self, paths: Sequence[FilePath] = ()) -> None:
        """`paths`: files of rules. `problems` has a diagnostic for each mistake in them."""
        self.problems: list[Diagnostic] = []
        self._rules: list[CompiledRule] = []
        self._places: dict[str, str] = {}
        for written in texts(paths, self.problems.append):
            self._file(written)

    @property
    def codes(self) -> frozenset[str]:
        """The codes of the rules."""
        return frozenset(each.rule.code for each in self._rules)

    def _file(self, written: MaskedText) -> None:
        def note(found: YamlProblem) -> None:
            place, length = written.place(found.span), written.length(found.span)
            self.problems.append(diagnostic(found.code, place, found.message, found.fix, length=length))

        for root in parse(written.text, note):
            source = SourceMap(written, root.node)
            if root.node.pairs is None:
                fix = "begin with `apiVersion: killswitch.dev/v1` and `kind: LintRules`"
                self.problems.append(source.diagnostic("KS1201", (), "a document is a mapping", fix))
                continue
            found = validate(OwnRulesDocument, root.node, source, frozenset())
            self.problems += found.problems
            if isinstance(found.model, OwnRulesDocument) and not found.problems and not found.holes:
                for number, rule in enumerate(found.model.rules):
                    self._add(rule, ("rules", number), source)

    def _add(self, rule: OwnRule, path: Path, source: SourceMap) -> None:
        place = source.place((*path, "code"))
        first = self._places.setdefault(rule.code, f"{place.file}:{place.line}")
        if first != f"{place.file}:{place.line}":
            message, fix = f"the code `{rule.code}` is already in {first}", "give each rule a code of its own"
            self.problems.append(source.diagnostic("KS7280", (*path, "code"), message, fix))
            return
        if rule.each is not None and not any(_has_path(KINDS[kind], rule.each.split(".")) for kind in rule.kinds):
            kinds = " or ".join(rule.kinds)
            message = f"no {kinds} has `{rule.each}`, so that the rule would never find anything"
            self.problems.append(source.diagnostic("KS7280", (*path, "each"), message, _path_fix(rule)))
            return
        try:
            program = _environment().compile(rule.when)
        except RuntimeError as error:
            message, fix = f"CEL rejects this: {_first_line(error)}", "see docs/policy-checks.md for what it may name"
            if re.search(r"\((?:double, int|int, double)\)", message):
                fix = "`number(…)` and `seconds(…)` have a decimal point: compare them with `600.0`, not `600`"
            self.problems.append(source.diagnostic("KS7281", (*path, "when"), message, fix))
            return
        self._rules.append(CompiledRule(rule, program))

    def findings(self, documents: Sequence[Document]) -> Iterator[LintFinding]:
        """The findings of all rules; a rule that cannot be evaluated for a document is an error there."""
        if not self._rules:
            return
        values = {id(each): _cel_value(each) for each in documents}
        everything = list(values.values())
        for document in documents:
            for compiled in self._rules:
                if document.kind in compiled.rule.kinds:
                    of_document = {"doc": values[id(document)], "docs": everything}
                    yield from _of_rule(compiled, document, of_document)


def _has_path(annotation: Any, steps: Sequence[str]) -> bool:
    """Whether a document of this annotation may have a list or a mapping at the path."""
    if options := shapes(annotation):
        return any(_has_path(option, steps) for option in options.values())
    if not steps:
        return get_origin(unwrap(annotation)[0]) in (dict, tuple) or is_part(annotation)
    inside = below(annotation, steps[0])
    return inside is not None and _has_path(inside, steps[1:])


def _path_fix(rule: OwnRule) -> str:
    """The closest key of the first step that is wrong."""
    steps = (rule.each or "").split(".")
    for kind in rule.kinds:
        annotations: list[Any] = [KINDS[kind]]
        for number, step in enumerate(steps):
            annotations = [it for each in annotations for it in (shapes(each) or {"": each}).values()]
            found = [it for each in annotations if (it := below(each, step)) is not None]
            keys = {key for each in annotations if is_part(each) for key in keys_of(unwrap(each)[0])}
            if not found and (near := closest(step, sorted(keys))) is not None:
                return f"write `{'.'.join((*steps[:number], near, *steps[number + 1 :]))}`"
            annotations = found
    return "write the path of a list or a mapping, such as `spec.stages` or `spec.triggers`"


def _of_rule(compiled: CompiledRule, document: Document, variables: dict[str, object]) -> Iterator[LintFinding]:
    rule = compiled.rule
    for path, key, item in _items(rule, variables["doc"]):
        value = compiled.program.eval(data={**variables, "item": item, "key": key})
        result = value.value()
        severity: Severity = rule.severity
        if not isinstance(result, bool):
            what = str(result).splitlines()[0]
            message = f"the rule {rule.code} cannot be evaluated here: {what}"
            fix = "test for a key that may be missing with `has(…)`, and end with a condition"
            yield LintFinding(document.source.diagnostic("KS7282", path, message, fix, key=True))
        elif result:
            found = document.source.diagnostic(rule.code, path, rule.message, rule.fix, key=True, severity=severity)
            yield LintFinding(found)


def _items(rule: OwnRule, document: Any) -> Iterator[tuple[Path, str, object]]:
    """(path, key, value) of each item of a rule; the document itself for a rule without `each`."""
    if rule.each is None:
        yield (), "", document
        return
    path = tuple(rule.each.split("."))
    value = document
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    found: Iterable[tuple[str | int, object]] = value.items() if isinstance(value, dict) else enumerate(value or ())
    if isinstance(value, str):
        return
    for key, item in found:
        yield (*path, key), str(key), item


def _cel_value(document: Document) -> object:
    root = document.source.node(())
    return None if root is None else _with_floats(plain_value(root))


def _with_floats(value: object) -> object:
    if isinstance(value, dict):
        return {key: _with_floats(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_floats(each) for each in value]
    return float(value) if isinstance(value, Decimal) else value


def _number(value: object) -> float:
    written = Decimal(str(value)) if isinstance(value, int | float) else value
    return float(quantity(written).value)


def _seconds(value: object) -> float:
    micros = written_micros(value)
    if micros is None:
        raise ValueError(f"{quoted(value)} is not a duration")
    return micros / 1_000_000


def _environment() -> Any:
    """CEL with the variables and functions of rules. The import loads a native extension, which only rules need."""
    from cel_expr_python import cel

    kinds = cel.Type
    numbers = [
        cel.Overload(f"number_{kind.name().lower()}", kinds.DOUBLE, [kind], False, _number)
        for kind in (kinds.STRING, kinds.DOUBLE, kinds.INT)
    ]
    seconds = [cel.Overload("seconds_string", kinds.DOUBLE, [kinds.STRING], False, _seconds)]
    functions = [cel.FunctionDecl("number", numbers), cel.FunctionDecl("seconds", seconds)]
    variables = {"doc": kinds.DYN, "docs": kinds.DYN, "item": kinds.DYN, "key": kinds.STRING}
    return cel.NewEnv(variables=variables, functions=functions)


def _first_line(error: RuntimeError) -> str:
    found = re.search(r"ERROR: <input>:\d+:\d+: (.*)", str(error))
    return (found[1] if found else str(error).splitlines()[0]).rstrip()
