"""JSON Schemas of documents, for editors: from the models that check them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from killswitch.policy.schema.document import API_VERSION
from killswitch.policy.schema.part import Part, is_part, keys_of, unwrap
from killswitch.policy.schema.trigger import ThresholdTrigger
from killswitch.signals.arguments import Argument
from killswitch.signals.catalogue import ARGUMENTS, BY_NAME

Schema = dict[str, Any]
Signals = Mapping[str, str]
"""Names of the signals that a trigger may watch → their meaning."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(kind: str, document: type[Part], signals: Signals) -> Schema:
    """The JSON Schema of one kind of document."""
    made = _generate([document], signals)
    definitions = made.pop("$defs")
    own = definitions.pop(document.__name__)
    head = {"$schema": DIALECT, "$id": f"https://{API_VERSION}/{kind}.json"}
    return {**head, **own, "title": kind, "$defs": definitions}


def schema_of_all(kinds: Mapping[str, type[Part]], signals: Signals) -> Schema:
    """One JSON Schema that accepts a document of any kind, for editors that do not know a file's kind."""
    made = _generate(kinds.values(), signals)
    cases = [
        {
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": {"$ref": f"#/$defs/{document.__name__}"},
        }
        for kind, document in kinds.items()
    ]
    return {
        "$schema": DIALECT,
        "$id": f"https://{API_VERSION}/all.json",
        "title": "Killswitch documents",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {"apiVersion": {"const": API_VERSION}, "kind": {"enum": list(kinds)}},
        "allOf": cases,
        "$defs": made["$defs"],
    }


class _Documents(GenerateJsonSchema):
    """pydantic's JSON Schema of a model, without parts that would mislead authors of documents.

    Defaults are omitted, because they are in internal units and described in words; no key accepts null; titles only
    repeat the key.
    """

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        made = super().model_schema(schema)
        part: type[Part] = schema["cls"]
        for key in keys_of(part).values():
            own, _ = unwrap(key.annotation)
            has_own = is_part(own) and own.__doc__ == key.meaning  # the reference leads to the same words
            if key.meaning and not has_own:
                made["properties"][key.key] = {**made["properties"][key.key], "description": key.meaning}
        return made

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        return self.generate_inner(schema["schema"])

    def nullable_schema(self, schema: core_schema.NullableSchema) -> Schema:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def _generate(documents: Iterable[type[Part]], signals: Signals) -> Schema:
    _, made = models_json_schema([(each, "validation") for each in documents], schema_generator=_Documents)
    if trigger := made["$defs"].get(ThresholdTrigger.__name__):
        names = {"enum": list(signals), "markdownEnumDescriptions": list(signals.values())}
        trigger["properties"]["signal"] |= names
        trigger["allOf"] = [_with_arguments(name) for name in signals]
    return made


def _with_arguments(signal: str) -> Schema:
    """The rule that a signal has its arguments and no others, with the words that each takes."""
    arguments = BY_NAME[signal].arguments
    keys = {each.key for each in arguments}
    then: Schema = {"required": [each.key for each in arguments]} if arguments else {}
    if others := [key for key in ARGUMENTS if key not in keys]:
        then["properties"] = dict.fromkeys(others, False)
    if words := {each.key: _words(each) for each in arguments if each.words}:
        then["properties"] = then.get("properties", {}) | words
    return {"if": {"properties": {"signal": {"const": signal}}}, "then": then}


def _words(argument: Argument) -> Schema:
    """The words of an argument; besides those, a reference takes the name of any document of its kind."""
    words: Schema = {"enum": list(argument.words)}
    if argument.kind == "word":
        return words
    return {"anyOf": [words, {"type": "string", "description": f"The name of a {argument.document}."}]}
