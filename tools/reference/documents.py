"""docs/reference/policy.md: every kind of document and every key, from the shapes that check them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_origin

from killswitch.policy.kinds import KINDS
from killswitch.policy.schema.document import API_VERSION, Metadata, VersionedPart
from killswitch.policy.schema.part import Key, Part, is_part, keys_of, shapes, unwrap
from tools.reference.examples import Examples, read_examples
from tools.reference.markdown import code, fence, page, sentence, table
from tools.reference.values import VALUES, anchor, value_words

INTRODUCTION = f"""\
A policy set is a folder of YAML files with as many documents in each as you like. Every document says
`apiVersion: {API_VERSION}`, its `kind`, `metadata` and `spec`; a name is unique per kind. An unknown key is an error.
Nothing has a hidden default: a key is either **needed**, or its line says what leaving it out means.

`ksctl validate` holds a folder to it. `ksctl schema > killswitch.schema.json` writes the same as a JSON Schema, with
the kinds, the words and the names of signals in it; `policies/killswitch.schema.json` is that file. An editor whose
YAML support is yaml-language-server completes and checks by it once its setting `yaml.schemas` names it:

```json
{{"yaml.schemas": {{"policies/killswitch.schema.json": "policies/**/*.yaml"}}}}
```

or where a document begins with `# yaml-language-server: $schema=killswitch.schema.json`, each document of a file."""


class Section(NamedTuple):
    """A part of a kind, and where in a document it stands."""

    part: type[Part]
    path: str


def policy_page() -> str:
    """The page: what all documents have, each kind with an example, then the written values."""
    examples = read_examples()
    parts = ["## Every document", *_metadata(examples)]
    for kind, document in KINDS.items():
        parts += _kind(kind, document, examples)
    parts += ["## Values", *(_value(name) for name in _ordered_values())]
    return page("Documents", INTRODUCTION, parts)


def sections(document: type[Part]) -> list[Section]:
    """The parts of a kind below `spec`, each once, in the order in which they are first met."""
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
    """The parts that a value may be or hold, and the way to each: `[]` into a list, `.NAME` into a mapping."""
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
        yield f"Built in, so that no document may take their names: {', '.join(code(name) for name in sorted(taken))}."
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
    """What tells parts of the same place apart: a key that only this one has and needs."""
    rivals = [other.part for other in found if other.path == section.path and other.part is not section.part]
    if not rivals:
        return ""
    elsewhere = {key for part in rivals for key in keys_of(part)}
    own = next((name for name, key in keys_of(section.part).items() if key.required and name not in elsewhere), "")
    return f" with `{own}`" if own else ""


def _anchor(kind: str, section: Section) -> str:
    return f"{kind.lower()}-{section.part.__name__.lower()}"


def _rule(schema: object) -> str:
    """What must hold between keys, as the JSON Schema says it."""
    if not isinstance(schema, Mapping):
        return ""
    for word, quantifier in (("oneOf", "Exactly one"), ("anyOf", "At least one")):
        cases = schema.get(word)
        if isinstance(cases, list) and all(isinstance(case, dict) and set(case) == {"required"} for case in cases):
            keys = ", ".join(code(key) for case in cases for key in case["required"])
            return f"{quantifier} of {keys} must be there."
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
        return f"{sentence(meaning)} **Needed.**".strip()
    return sentence(meaning) if "Left out:" in meaning else f"{sentence(meaning)} May be left out."


def _of_its_part(key: Key) -> str:
    """The words of the part itself, for a key that has none of its own."""
    inside = [part.__doc__ or "" for part, _ in _inside(key.annotation)]
    return " ".join(inside[0].split()) if len(inside) == 1 else ""


def _ordered_values() -> list[Any]:
    return sorted(VALUES, key=lambda parse: VALUES[parse].name)


def _value(parse: Any) -> str:
    words = VALUES[parse]
    shown = ", ".join(code(example) for example in words.examples)
    return f"### {words.name.capitalize()} {{ #{anchor(words.name)} }}\n\n{words.meaning} For example {shown}."
