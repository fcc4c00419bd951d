"""JSON Schemas are generated from the classes that check documents, and agree with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from killswitch.policy.kinds import KINDS
from killswitch.policy.schema import json_schema
from killswitch.policy.schema.actions import ACTIONS
from killswitch.policy.schema.part import keys_of
from killswitch.signals.catalogue import ARGUMENTS, TRIGGER_SIGNALS

Schema = dict[str, Any]


def schema_of(kind: str) -> Schema:
    """The schema of one kind, with all signals."""
    return json_schema.schema_of(kind, KINDS[kind], TRIGGER_SIGNALS)


def schema_of_all() -> Schema:
    """The schema of every kind, with all signals."""
    return json_schema.schema_of_all(KINDS, TRIGGER_SIGNALS)


def objects(schema: Any) -> list[dict[str, Any]]:
    """Every object schema with keys of its own, however deep; no rule that refines one."""
    found = [schema] if isinstance(schema, dict) and "properties" in schema else []
    keyed = {key: part for key, part in schema.items() if key != "allOf"} if isinstance(schema, dict) else {}
    below = keyed.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return found + [each for part in below for each in objects(part)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_has_the_keys_of_its_kind_and_no_others(kind: str) -> None:
    """A key without a default is required; unknown keys are refused at every depth."""
    schema = schema_of(kind)
    assert schema["title"] == kind
    assert list(schema["properties"]) == ["apiVersion", "kind", "metadata", "spec"]
    assert schema["required"] == ["apiVersion", "kind", "metadata", "spec"]
    assert schema["properties"]["kind"]["const"] == kind
    assert all(each["additionalProperties"] is False for each in objects(schema))
    json.dumps(schema)


def test_optional_keys_describe_their_default() -> None:
    """Every key of a policy with a default has a description that contains `Left out`, except the one-key ones."""
    silent = [
        f"{key} of {each.get('description', '')}"
        for kind in KINDS
        for each in objects(schema_of(kind)["$defs"])
        for key, value in each["properties"].items()
        if key not in each.get("required", ()) and "Left out" not in value.get("description", "")
    ]
    explained_together = ("at_least", "at_most", "above", "below", "is", *ARGUMENTS, *ACTIONS)
    weights = ("pnl_delta", "loss", "liquidation_proximity", "notional_share", "margin_loss", "bleed_rate")
    match = ("account", "venue", "market", "currency")
    assert [each for each in silent if each.split()[0] not in (*explained_together, *weights, *match)] == []


def test_the_schema_of_all_kinds_distinguishes_them() -> None:
    """One schema for an editor that knows only the folder."""
    schema = schema_of_all()
    assert [each["if"]["properties"]["kind"]["const"] for each in schema["allOf"]] == list(KINDS)
    assert schema["properties"]["kind"]["enum"] == list(KINDS)


def test_keys_are_named_as_they_are_written() -> None:
    """`for`, `any` and `all` have these names, whatever the attribute is called."""
    stage = schema_of("Policy")["$defs"]["Stage"]
    assert {"any", "all"} <= set(stage["properties"])
    assert "any_of" not in json.dumps(stage)
    assert set(keys_of(KINDS["Policy"])) == {"apiVersion", "kind", "metadata", "spec"}


def conforms(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a document conforms, according to the reference implementation of JSON Schema for Python."""
    return bool(Draft202012Validator(schema).is_valid(value))


@pytest.mark.parametrize("name", ["circuit-breaker", "futures-drawdown", "spot-drawdown"])
def test_shipped_policies_conform_to_the_schema(repository: Path, name: str) -> None:
    """An editor and `validate` agree on which documents are valid."""
    text = (repository / "policies" / name / "policy.yaml").read_text()
    document, unwinding = YAML(typ="safe", pure=True).load_all(text)
    assert conforms(document, schema_of("Policy"))
    assert conforms(unwinding, schema_of("Unwinding"))
    document["spec"]["stages"][0]["coldown"] = "1m"
    assert not conforms(document, schema_of("Policy"))


def test_an_unwinding_conforms_to_the_schema(repository: Path) -> None:
    """With every key; an unknown key or reason, and values of another type, are refused."""
    text = (repository / "tools" / "reference" / "examples" / "Unwinding.yaml").read_text()
    schema = schema_of("Unwinding")
    for broken in ({}, {"paus": "2s"}, {"pause": "2"}, {"reasons": ["markte"]}, {"slippage": [{"at_most": []}]}):
        document = YAML(typ="safe", pure=True).load(text)
        document["spec"].update(broken)
        assert conforms(document, schema) == (not broken)


@pytest.mark.parametrize(
    ("trigger", "is_valid"),
    [
        ({"signal": "equity.loss_since", "anchor": "utc_day"}, True),
        ({"signal": "equity.loss_since", "anchor": "us-equities"}, True),
        ({"signal": "equity.loss_since", "anchor": "us equities"}, False),
        ({"signal": "equity.loss_since"}, False),
        ({"signal": "positions.worst_loss", "against": "entry"}, True),
        ({"signal": "positions.worst_loss", "against": "us-equities"}, False),
    ],
)
def test_an_argument_that_names_a_document_takes_its_words_too(trigger: dict[str, str], is_valid: bool) -> None:
    """The words are listed for completion; a `word` takes nothing else."""
    schema = schema_of("Policy")
    rule = {**schema["$defs"]["ThresholdTrigger"], "$defs": schema["$defs"]}
    written = {**trigger, "at_least": "3%", "on_unknown": "hold"}
    assert Draft202012Validator(rule).is_valid(written) is is_valid
    anchors = [each["then"]["properties"].get("anchor") or {} for each in schema["$defs"]["ThresholdTrigger"]["allOf"]]
    assert [each["anyOf"][0] for each in anchors if each] == [{"enum": ["utc_day"]}] * 2
