"""The reference pages are generated from the code by one command; stale pages are found here."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.cli import VERBS
from killswitch.graph.compile import compile_loaded
from killswitch.policy.diagnostics.pages import pages as pages_of_codes
from killswitch.policy.kinds import KINDS
from killswitch.policy.loader import load
from killswitch.policy.schema.part import Part, keys_of
from killswitch.policy.schema.trigger import ThresholdTrigger
from killswitch.signals.catalogue import ARGUMENTS, CATALOGUE
from tools.reference.documents import sections
from tools.reference.examples import FOLDER, read_examples
from tools.reference.pages import generated, reference
from tools.reference.values import VALUES


def test_no_generated_page_is_stale(repository: Path) -> None:
    """The reference pages and the schema are those generated now; `make reference` rewrites them."""
    stale = [name for name, text in generated().items() if (repository / name).read_text(encoding="utf-8") != text]
    assert stale == [], "run `make reference`, and commit what it writes"


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_a_kind_has_an_example(kind: str) -> None:
    """tools/reference/examples/KIND.yaml writes each key of the kind once; an argument of signals in a trigger."""
    known = read_examples()
    arguments = known.values[ThresholdTrigger].keys() & ARGUMENTS.keys()
    missing = [
        f"{section.path}.{key}"
        for section in sections(KINDS[kind])
        for key in keys_of(section.part)
        if key not in known.values.get(section.part, {}) and key not in arguments
    ]
    assert kind in known.texts, f"there is no {FOLDER.name}/{kind}.yaml"
    way_out = f"write each in {FOLDER.name}/{kind}.yaml of tools/reference, with a value other than its default"
    assert missing == [], way_out


def test_the_examples_are_a_policy_set_without_an_error() -> None:
    """The examples can be copied: they load and compile together."""
    loaded = load([FOLDER])
    _, problems = compile_loaded(loaded)
    assert [problem for problem in problems if problem.severity == "error"] == []


def test_every_key_kind_code_signal_and_verb_is_on_its_page() -> None:
    """Nothing that a user may write, read or type is missing; the registries are compared, not the pages."""
    pages = reference()
    keys = {key for kind in KINDS.values() for part in parts(kind) for key in keys_of(part)}
    assert [key for key in keys if f"| `{key}` |" not in pages["policy.md"]] == []
    assert [kind for kind in KINDS if f"\n## {kind} {{" not in pages["policy.md"]] == []
    assert [code for code in pages_of_codes() if f"\n### {code}: " not in pages["diagnostics.md"]] == []
    assert [verb for verb in VERBS if f"\n## `ksctl {verb}`" not in pages["cli.md"]] == []
    assert [spec.name for spec in CATALOGUE if f"\n### `{spec.name}" not in pages["signals.md"]] == []


def test_the_examples_of_value_types_are_valid() -> None:
    """The page's examples of a duration, a fraction and so on are accepted by the document reader."""
    for read, words in VALUES.items():
        assert words.examples
        for example in words.examples:
            read(example)


def parts(document: type[Part]) -> list[type[Part]]:
    """The parts below a kind's spec."""
    return [section.part for section in sections(document)]
