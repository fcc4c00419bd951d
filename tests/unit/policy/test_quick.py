"""The quick reader of plain YAML: it reads what ruamel.yaml reads, to the last column, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from killswitch.policy.yaml.parser import read_plain
from killswitch.policy.yaml.tree import Node, Note, parse_any

ROOT = Path(__file__).parents[3]
TEXTS = sorted(
    path
    for folder in ("policies", "tests/unit/policy/mistakes", "tests/unit/graph/golden", "tools/reference/examples")
    for path in (ROOT / folder).rglob("*.yaml")
)


def shown(node: Node) -> Any:
    """Everything that a node says."""
    if node.pairs is not None:
        below: Any = [(key, shown(one), shown(other)) for key, (one, other) in node.pairs.items()]
    elif node.items is not None:
        below = [shown(each) for each in node.items]
    else:
        below = (node.text, node.plain)
    return node.span, node.refused, below


def agree(text: str) -> bool:
    """Whether it was read at all; fails where the two readers differ."""
    quick = read_plain(text)
    if quick is None:
        return False
    notes: list[Note] = []
    known = parse_any(text, notes.append)
    assert notes == [], text
    assert [(shown(root.node), root.sound) for root in quick] == [(shown(root.node), root.sound) for root in known]
    return True


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_the_files_of_the_project_are_read_alike(path: Path) -> None:
    """Every policy, example, and file of mistakes, those made by tests after `#!` left in as comments."""
    agree(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted((ROOT / "policies").rglob("*.yaml")), ids=lambda path: path.parent.name)
def test_every_shipped_policy_is_of_the_plain_part(path: Path) -> None:
    """Otherwise the quick reader would be of no use."""
    assert read_plain(path.read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "a: 1\na: 2\n",
        "a:\n",
        "a: {}\nb:\nc: 1\n",
        "a:\n- 1\n",
        "a: 1\n  2\n",
        "a: |\n  x\n",
        "a: &b c\n",
        "a: *b\n",
        "a: !!str 1\n",
        "a:\tb\n",
        "\ta: b\n",
        "a: 'x\n  y'\n",
        'a: "x\\n"\n',
        "a: {b: 1,\n  c: 2}\n",
        "a: {b: 1, b: 2}\n",
        "a: {b}\n",
        "a: {b: }\n",
        "a: [b: c]\n",
        "a: [1, ]\n",
        "a: {b: 1,}\n",
        "a: b: c\n",
        "a: b:\n",
        "- 1\n",
        "x\n",
        "<<: {a: 1}\n",
        "a: {<<: 1}\n",
        "%YAML 1.2\n---\na: 1\n",
        "a: 1\n...\n",
        "---\n---\na: 1\n",
        "a: 1\n---\n",
        "--- a: 1\n",
        "a: 1\n b: 2\n",
        "a: @x\n",
        "a: `x\n",
        "a: ? b\n",
        "? a\n: b\n",
        "a: 1\r\nb: 2\r\n",
        "a: '1' 2\n",
        "a: {b: 1} c\n",
        "a: {b: 1}#c\n",
        "\ufeffa: 1\n",
        "a: x\x85y\n",
        "a:\n  - - 1\n",
        "a:\n  -\n    b: 1\n",
        "a:\n  - \n",
        "a:\n  - b: 1\n  -   ",
        "a:\n    b: 1\n  c: 2\n",
        "a: [1\n",
        "a: 1]: 2\n",
        "a: -\n",
        "a: - b\n",
        "a: {'b': 1}\n",
        "'a': 1\n",
        "a: [-, 1]\n",
        "a: {b: 1 #c}\n",
    ],
)
def test_what_is_not_of_the_plain_part_is_left_to_the_other_reader(text: str) -> None:
    """Nothing is read of it, so that whatever is to be said of it is said there."""
    assert read_plain(text) is None or text in ("", "# nothing\n") or pytest.fail(f"was read: {text!r}")


@pytest.mark.parametrize(
    "text",
    [
        "a: 1",
        "a: 1\n",
        "---\na: 1\n",
        "a: 1\n---\nb: 2\n",
        "a:\n  b:\n    c: d\n  e: f\n",
        "a:\n  - 1\n  - b: 2\n    c: 3\n  - [x, {y: z}]\n",
        "a: x#y\n",
        "a: x # y\n",
        "a: BTC/USDT:USDT\n",
        "a: 'it''s'  # c\n",
        'a: "b"\n',
        "a: {}\nb: []\n",
        "a: {b: -5%, c: 10000 USDT }\n",
        "a:   # c\n  b: 1\n",
        "a: 1\n\n# c\n\n",
        "a:\n  - b: 1\n\n  # c\n  - b: 2\n# end",
        "a: 2024-01-01\n",
        "a: x, y [z] {w}\n",
        "a:\n  -   b: 1\n      c: 2\n",
        "a: [1, 2]   \n",
        "a: {b: {c: [1, {d: e}]}, f: 'g, h'}\n",
        "a: x é × …\n",
        "a: 'b: c'\n",
        "a.b/c-d: 1\n",
        "a: 1   \n",
        "a: [ 1, 2 ]\n",
        "a:\n  - x\n  - -1\nb: 1\n",
        "a: (x)\n",
        "a: {b: x y  , c: d}\n",
        "a: [BTC/USDT:USDT, ETH/USDT:USDT]\n",
        "a: [{account: main, symbol: BTC/USDT:USDT}, {account: other, symbol: x:1}]\n",
    ],
)
def test_the_plain_part_is_read(text: str) -> None:
    """And as ruamel.yaml reads it."""
    assert agree(text)


words = st.text("ab1-.: #,'\"{}[]?&*!|>%@<~\n\t é_/", max_size=7)
pieces = st.sampled_from(
    [
        "a: ",
        "b:\n",
        "- ",
        "  ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        ": ",
        "\n",
        "'",
        '"',
        " #c",
        "---\n",
        "x",
        "1%",
        "c: {d: 1}\n",
        "  - e: 2\n",
        "    f: 3\n",
    ]
)


@given(st.lists(st.one_of(pieces, words), max_size=14).map("".join))
@example(" c: 1\nc: 2\n")
@example("a: {b: c:d}\n")
@example("a: {b: c:d: e}\n")
@example("a: [b:c d:e, :f]\n")
@example("a: [b:'c']\n")
@example("a: b  :c\n")
@example("a: b ,c\n")
@example("a: [a]\n b: c\n")
def test_any_text_is_read_alike_or_not_at_all(text: str) -> None:
    """Pieces of YAML in any order."""
    agree(text)


@st.composite
def blocks(draw: st.DrawFn, depth: int = 0) -> list[str]:
    """Lines of a sound block mapping."""
    lines: list[str] = []
    for key in draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)):
        kind = draw(st.sampled_from(("value", "value", "mapping", "list") if depth < 3 else ("value",)))
        if kind == "value":
            lines.append(f"{key}: {draw(values)}")
        elif kind == "mapping":
            lines += [f"{key}:", *("  " + line for line in draw(blocks(depth + 1)))]
        else:
            lines.append(f"{key}:")
            for _ in range(draw(st.integers(1, 3))):
                first, *rest = draw(st.one_of(values.map(lambda value: [value]), blocks(depth + 1)))
                lines += [f"  - {first}", *(f"    {line}" for line in rest)]
        if draw(st.booleans()):
            lines.append(draw(st.sampled_from(("", "# c", "    # c"))))
    return lines


values = st.recursive(
    st.sampled_from(["1", "4.5%", "x y", "'q: r'", '"s"', "a-b", "true", "~", "10000 USDT", "-3", "it's", "A/B:C"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(inner, max_size=3).map(lambda each: "{" + ", ".join(f"k{i}: {v}" for i, v in enumerate(each)) + "}"),
    ),
    max_leaves=6,
)


@given(st.lists(blocks(), min_size=1, max_size=3), st.sampled_from(("", "\n", "\n\n", "\n# end", "  ")))
def test_sound_documents_are_read_alike(documents: list[list[str]], end: str) -> None:
    """Mappings, lists and flow values in any nesting, with comments between."""
    agree("\n---\n".join("\n".join(lines) for lines in documents) + end)
