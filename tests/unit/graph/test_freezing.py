"""A node has a field for each key of the parts that it is frozen from, of the key's type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from msgspec import Struct
from msgspec.structs import astuple
from pydantic import ConfigDict, Field, TypeAdapter

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.opening import AccountSpec
from killswitch.graph.actions.registry import ACTIONS
from killswitch.graph.compile import compile_loaded
from killswitch.graph.freezing import ORIGINS, freeze, frozen_from
from killswitch.incident.record.document import RunbookFacts
from killswitch.policy.loader import load
from killswitch.policy.schema.part import Part, is_part, keys_of, unwrap
from killswitch.policy.schema.scalars import Duration, Fraction, Threshold, Word

RECORDS = (AccountSpec, ArmedAccount, RunbookFacts)
"""Of documents that become no node of the graph; importing them declares what they are frozen from."""
SHIPPED = dict(ORIGINS)
PARTS = sorted({part for origin in SHIPPED.values() for part in origin.parts}, key=lambda part: part.__qualname__)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__qualname__)
def test_a_node_has_a_field_for_each_key_of_its_parts(part: type[Part]) -> None:
    """Of the key's type, unless the node declares that the key is resolved by hand."""
    assert list(disagreements(part)) == [], "add the field, or list the key in `by_hand`: docs/add-a-key.md"


def test_every_action_is_frozen_from_its_part() -> None:
    """A new action cannot leave this check out."""
    assert {kind.node for kind in ACTIONS} <= SHIPPED.keys()


def test_documents_without_a_node_are_frozen_from_their_parts() -> None:
    """A key of an `Account` or a `Runbook` cannot be left out of what is made of it."""
    assert set(RECORDS) <= SHIPPED.keys()


GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.glob("*.yaml")))
def test_what_is_resolved_is_of_the_type_of_its_field(name: str) -> None:
    """Of every field of every node, since no type checker sees what is passed to `freeze`."""
    policy_set, _ = compile_loaded(load([GOLDEN / name]))
    assert policy_set is not None
    found = list(nodes_in(policy_set))
    assert len(found) > 10
    for node in found:
        for field, hint in get_type_hints(type(node)).items():
            TypeAdapter(hint, config=ANY_CLASS).validate_python(getattr(node, field), strict=True)


ANY_CLASS = ConfigDict(arbitrary_types_allowed=True)


def nodes_in(value: object) -> Iterator[Struct]:
    """The node and all nodes inside it."""
    inside: Iterable[object] = value if isinstance(value, tuple) else ()
    if isinstance(value, Struct):
        yield value
        inside = astuple(value)
    for each in inside:
        yield from nodes_in(each)


class Inner(Part):
    """A part inside another one."""

    share: Fraction
    limit: Threshold | None = None
    """A bound. Left out: none."""


class Outer(Part):
    """A part with a key of each sort."""

    mode: Literal["a", "b"]
    length: Annotated[Duration | None, Field(alias="for")] = None
    """A time. Left out: none."""
    inner: Inner | None = None
    """Another part. Left out: the default."""
    others: tuple[Inner, ...] = ()
    """More of them. Left out: none."""
    prices: dict[str, Fraction] = {}  # pydantic copies it
    """Prices. Left out: none."""
    names: tuple[Word, ...] = ()
    """Names. Left out: none."""


@frozen_from(Inner, amount="limit.value")
class InnerNode(Struct, frozen=True):
    share: Decimal
    amount: Decimal | None


@frozen_from(Outer, is_a=("mode", lambda written: written == "a"), length="for", by_hand=["names"])
class OuterNode(Struct, frozen=True):
    place: str
    is_a: bool
    names: tuple[int, ...]
    prices: tuple[tuple[str, Decimal], ...]
    others: tuple[InnerNode, ...] = ()
    length: int = 7
    inner: InnerNode = InnerNode(Decimal(1), None)


def test_keys_become_fields() -> None:
    """Under the field's own name, converted where it says so; parts become nodes, mappings sorted pairs."""
    inner = {"share": "50%", "limit": "20 USDT"}
    written = {"mode": "a", "for": "2s", "inner": inner, "others": [inner], "prices": {"B": "2%", "A": "1%"}}
    frozen = InnerNode(Decimal("0.5"), Decimal(20))
    assert freeze(Outer.model_validate(written), OuterNode, place="here", names=(1,)) == OuterNode(
        "here", True, (1,), (("A", Decimal("0.01")), ("B", Decimal("0.02"))), (frozen,), 2_000_000, frozen
    )


def test_a_key_that_is_left_out_leaves_the_default_of_its_field() -> None:
    """A field that may be None without a default is None."""
    bare = freeze(Outer.model_validate({"mode": "b"}), OuterNode, place="here", names=())
    assert (bare.length, bare.inner) == (7, InnerNode(Decimal(1), None))
    assert freeze(Inner.model_validate({"share": 1}), InnerNode) == InnerNode(Decimal(1), None)


@pytest.mark.parametrize(("resolved", "field"), [({"names": ()}, "place"), ({"place": "here"}, "names")])
def test_a_field_that_nobody_resolved_is_an_error(resolved: dict[str, Any], field: str) -> None:
    """One without a key, and one whose key is resolved by hand."""
    with pytest.raises(TypeError, match=f"`{field}` is no key of Outer, and is not resolved"):
        freeze(Outer.model_validate({"mode": "a"}), OuterNode, **resolved)


def test_what_a_node_lacks_or_has_of_another_type_is_found() -> None:
    """A forgotten field, one of a wrong type, one that cannot be None, and a forgotten key inside another part."""

    class Wrong(Outer):
        """The same keys, and a node that fits none."""

    @frozen_from(Wrong, share="inner.share", typo="imner.share")
    class WrongNode(Struct, frozen=True):
        length: int
        names: tuple[int, ...]
        prices: dict[str, Decimal]
        others: tuple[InnerNode, ...]
        share: Decimal
        typo: Decimal

    try:
        assert sorted(disagreements(Wrong)) == [
            "Wrong.for has no field in WrongNode",
            "Wrong.inner.limit has no field in WrongNode",
            "Wrong.inner.share may be left out, and WrongNode.share has no default",
            "Wrong.mode has no field in WrongNode",
            "Wrong.names is not of the type of WrongNode.names",
            "Wrong.prices is not of the type of WrongNode.prices",
            "WrongNode.typo is said to be the key `imner.share`, which Wrong lacks",
        ]
    finally:
        del ORIGINS[WrongNode]


def disagreements(part: type[Part]) -> Iterator[str]:
    """Keys of the part that no node has or resolves, and fields that are not of the type of their key."""
    had: set[str] = set()
    nodes = [node for node, origin in ORIGINS.items() if part in origin.parts]
    for node in nodes:
        origin = ORIGINS[node]
        had |= origin.by_hand
        for field, hint in get_type_hints(node).items():
            path, _ = origin.source(field)
            key = _key(part, path)
            if key is None and field in origin.sources:
                yield f"{node.__name__}.{field} is said to be the key `{path}`, which {part.__name__} lacks"
            if key is None or path in origin.by_hand:
                continue
            had.add(path)
            is_converted = isinstance(origin.sources.get(field), tuple)
            if not is_converted and not _agree(key[0], hint):
                yield f"{part.__name__}.{path} is not of the type of {node.__name__}.{field}"
            if key[1] and NoneType not in get_args(hint) and not _has_default(node, field):
                yield f"{part.__name__}.{path} may be left out, and {node.__name__}.{field} has no default"
    for path in _lacking(part, "", had):
        yield f"{part.__name__}.{path} has no field in {' or '.join(node.__name__ for node in nodes)}"


def _key(part: type[Part], path: str) -> tuple[Any, bool] | None:
    """The annotation of a key, and whether its value may be None; None without such a key."""
    annotation: Any = part
    may_be_none = False
    for step in path.split("."):
        holder, _ = unwrap(annotation)
        if is_part(holder) and step not in keys_of(holder):
            return None
        annotation = keys_of(holder)[step].annotation if is_part(holder) else get_type_hints(holder)[step]
        may_be_none |= NoneType in _options(annotation)
    return annotation, may_be_none


def _lacking(part: type[Part], before: str, had: set[str]) -> Iterator[str]:
    for name, key in keys_of(part).items():
        path = before + name
        if any(each.startswith(f"{path}.") for each in had) and is_part(key.annotation):
            yield from _lacking(unwrap(key.annotation)[0], f"{path}.", had)
        elif not any(each == path or each.startswith(f"{path}.") for each in had):
            yield path


def _has_default(node: type[Struct], field: str) -> bool:
    names = node.__struct_fields__
    return names.index(field) >= len(names) - len(node.__struct_defaults__)


def _options(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _options(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [option for each in get_args(annotation) for option in _options(each)]
    return [annotation]


def _agree(key: Any, field: Any) -> bool:
    keys, fields = ([it for it in _options(each) if it is not NoneType] for each in (key, field))
    return all(any(_is_of(one, other) for other in fields) for one in keys) and all(
        any(_is_of(one, other) for one in keys) for other in fields
    )


def _is_of(key: Any, field: Any) -> bool:
    """Whether a value of a key freezes into a value of a field; both are one type without metadata."""
    if is_part(key):
        return field in ORIGINS and key in ORIGINS[field].parts
    inside, of_field = get_args(key), get_args(field)
    if get_origin(key) is tuple and get_origin(field) is tuple:
        return _agree(inside[0], of_field[0])
    if get_origin(key) is dict and get_origin(field) is tuple:
        return all(map(_agree, inside, get_args(of_field[0])))
    return bool(key == field)
