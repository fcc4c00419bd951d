"""Generates docs/reference/policy.md: every kind of document and every key, from the models that validate them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from msgspec import Struct

from killswitch.policy.kinds import KINDS
from killswitch.policy.schema.document import API_VERSION, Metadata, VersionedPart
from killswitch.policy.schema.part import Key, Part, is_part, keys_of, shapes, unwrap
from tools.reference.examples import Examples, read_examples
from tools.reference.markdown import code, fence, page, sentence, table
from tools.reference.values import VALUES, anchor, value_words

INTRODUCTION = f"""\
A policy set is a folder of YAML files with any number of documents in each. Every document has
`apiVersion: {API_VERSION}`, `kind`, `metadata` and `spec`; a name is unique per kind. An unknown key is an error. There
are no hidden defaults: a key is either **required**, or its description states the meaning of an omitted key.

`ksctl validate` checks a folder. `ksctl schema > killswitch.schema.json` writes the same rules as a JSON Schema, with
the kinds, values and signal names; `policies/killswitch.schema.json` is that file. An editor with
yaml-language-server uses it for completion and checks if its setting `yaml.schemas` names it:

```json
{{"yaml.schemas": {{"policies/killswitch.schema.json": "policies/**/*.yaml"}}}}
```

or if each document of a file begins with `# yaml-language-server: $schema=killswitch.schema.json`."""


class Section(Struct, frozen=True):
    """A part of a kind, and its path in a document."""

    part: type[Part]
    path: str


def policy_page() -> str:
    """The page: the keys of all documents, each kind with an example, then the types of values."""
    examples = read_examples()
    parts = ["## Every document", *_metadata(examples)]
    for kind, document in KINDS.items():
        parts += _kind(kind, document, examples)
    parts += ["## Values", *(_value(name) for name in _ordered_values())]
    return page("Documents", INTRODUCTION, parts)


def sections(document: type[Part]) -> list[Section]:
    """The parts of a kind below `spec`, each once, in order of their first occurrence."""
    found: dict[type[Part], Section] = {}
    waiting = [Section(part, "spec") for part, _ in _inside(keys_of(document)["spec"].annotation)]
    while waiting:
        section = waiting.pop(0)
        if section.part in found:
            continue
        found[section.part] = section
        for name, key in keys_of(section.part).items():
            waiting += [Section(part, f"{section.path}.{name}{way}") for part, way in _inside(key.annotation)]
    return list(found.values())


def _inside(annotation: Any, way: str = "") -> Iterator[tuple[type[Part], str]]:
    """The parts that a value may be or contain, with the path to each: `[]` into a list, `.NAME` into a mapping."""
    plain, _ = unwrap(annotation)
    if options := shapes(annotation):
        for shape in options.values():
            yield from _inside(shape, way)
    elif is_part(plain):
        yield plain, way
    elif get_origin(plain) is tuple:
        yield from _inside(get_args(plain)[0], f"{way}[]")
    elif get_origin(plain) is dict:
        yield from _inside(get_args(plain)[1], f"{way}.NAME")


def _metadata(examples: Examples) -> Iterator[str]:
    yield "### `metadata` { #metadata }"
    yield sentence(Metadata.__doc__ or "")
    yield _keys(Metadata, {}, examples)


def _kind(kind: str, document: type[VersionedPart], examples: Examples) -> Iterator[str]:
    yield f"## {kind} {{ #{kind.lower()} }}"
    yield sentence(document.__doc__ or "")
    if taken := document.BUILT_IN:
        yield f"Built-in names, which documents cannot use: {', '.join(code(name) for name in sorted(taken))}."
    if kind in examples.texts:
        yield fence(examples.texts[kind], "yaml")
    found = sections(document)
    links = {section.part: f"#{_anchor(kind, section)}" for section in found}
    for section in found:
        yield f"### {kind}: `{section.path}`{_form(section, found)} {{ #{_anchor(kind, section)} }}"
        words = " ".join((section.part.__doc__ or "").split())
        yield words
        if "xactly one" not in words and (rule := _rule(section.part.model_config.get("json_schema_extra"))):
            yield rule
        yield _keys(section.part, links, examples)


def _form(section: Section, found: list[Section]) -> str:
    """The suffix that distinguishes parts at the same path: a key that only this one has and requires."""
    rivals = [other.part for other in found if other.path == section.path and other.part is not section.part]
    if not rivals:
        return ""
    elsewhere = {key for part in rivals for key in keys_of(part)}
    own = next((name for name, key in keys_of(section.part).items() if key.required and name not in elsewhere), "")
    return f" with `{own}`" if own else ""


def _anchor(kind: str, section: Section) -> str:
    return f"{kind.lower()}-{section.part.__name__.lower()}"


def _rule(schema: object) -> str:
    """The condition between keys in the JSON Schema."""
    if not isinstance(schema, Mapping):
        return ""
    for word, quantifier in (("oneOf", "Exactly one"), ("anyOf", "At least one")):
        cases = schema.get(word)
        if isinstance(cases, list) and all(isinstance(case, dict) and set(case) == {"required"} for case in cases):
            keys = ", ".join(code(key) for case in cases for key in case["required"])
            return f"{quantifier} of {keys} is required."
    return ""


def _keys(part: type[Part], links: Mapping[type[Part], str], examples: Examples) -> str:
    def link(inner: type[Part]) -> str:
        return f"[mapping]({links[inner]})" if inner in links else "mapping"

    rows = []
    for name, key in keys_of(part).items():
        written = examples.of(part, name)
        shown = f"<br>{code(written)}" if written else ""
        rows.append((code(name), f"{value_words(key.annotation, link)}{shown}", _meaning(key)))
    return table(["key", "value", "meaning"], rows)


def _meaning(key: Key) -> str:
    meaning = key.meaning or _of_its_part(key)
    if key.required:
        return f"{sentence(meaning)} **Required.**".strip()
    return sentence(meaning) if "Left out:" in meaning else f"{sentence(meaning)} Optional."


def _of_its_part(key: Key) -> str:
    """The docstring of the part, for a key without a description."""
    inside = [part.__doc__ or "" for part, _ in _inside(key.annotation)]
    return " ".join(inside[0].split()) if len(inside) == 1 else ""


def _ordered_values() -> list[Any]:
    return sorted(VALUES, key=lambda parse: VALUES[parse].name)


def _value(parse: Any) -> str:
    words = VALUES[parse]
    shown = ", ".join(code(example) for example in words.examples)
    return f"### {words.name.capitalize()} {{ #{anchor(words.name)} }}\n\n{words.meaning} For example {shown}."
