"""The tree of RFC 6962: its published hashes, the definition by recursion, and every way to spoil a proof."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.record.line import leaf_of
from killswitch.record.tree import (
    Proof,
    TreeEdge,
    decode_proof,
    encode_proof,
    inclusion_path,
    refusal_of,
    root_from_path,
    root_of,
)
from tests.unit.record.chains import CHAIN, raw_lines

# The inputs and results that the reference implementations of Certificate Transparency publish (RFC 6962's authors).
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 8): ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
             "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
             "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"],
    (5, 8): ["bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
             "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
             "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): ["6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
             "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
             "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"],
}  # fmt: skip


def hashed(leaves: list[bytes]) -> list[bytes]:
    """The leaves of contents, by the definition."""
    return [sha256(b"\0" + leaf).digest() for leaf in leaves]


def defined_root(leaves: list[bytes]) -> bytes:
    """The hash of a tree by the recursion of RFC 6962, 2.1; `leaves` are hashed already."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"").digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha256(b"\1" + defined_root(leaves[:half]) + defined_root(leaves[half:])).digest()


def defined_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """The audit path by the recursion of RFC 6962, 2.1.1."""
    if len(leaves) < 2:
        return []
    half = 1 << (len(leaves) - 1).bit_length() - 1
    if index < half:
        return [*defined_path(index, leaves[:half]), defined_root(leaves[half:])]
    return [*defined_path(index - half, leaves[half:]), defined_root(leaves[:half])]


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_those_that_are_published_for_rfc_6962(size: int) -> None:
    """Of trees of no to eight leaves."""
    assert root_of(leaf_of(leaf) for leaf in LEAVES[:size]).hex() == ROOTS[size]


@pytest.mark.parametrize(("place", "path"), PATHS.items())
def test_the_paths_are_those_that_are_published_for_rfc_6962(place: tuple[int, int], path: list[str]) -> None:
    """Both to make and to check."""
    index, size = place
    leaves = hashed(LEAVES[:size])
    assert [each.hex() for each in inclusion_path(leaves, index)] == path
    assert root_from_path(leaves[index], index, size, [bytes.fromhex(each) for each in path]) == bytes.fromhex(
        ROOTS[size]
    )


@pytest.mark.parametrize("size", range(1, 40))
def test_every_path_of_every_size_follows_the_definition(size: int) -> None:
    """The paths, the roots, and that each path leads to its root."""
    leaves = hashed([b"%d" % number for number in range(size)])
    root = defined_root(leaves)
    assert root_of(leaves) == root
    for index in range(size):
        path = inclusion_path(leaves, index)
        assert list(path) == defined_path(index, leaves)
        assert root_from_path(leaves[index], index, size, path) == root


@given(st.integers(0, 200), st.integers(1, 100), st.data())
def test_a_tree_whose_beginning_was_deleted_proves_the_rest_from_its_edge(
    deleted: int, kept: int, data: st.DataObject
) -> None:
    """The edge over the deleted lines stands for them: root and paths are those of the whole tree."""
    leaves = hashed([b"%d" % number for number in range(deleted + kept)])
    before = TreeEdge()
    for leaf in leaves[:deleted]:
        before.append(leaf)
    restored = TreeEdge.decode(before.size, before.encode())
    index = data.draw(st.integers(deleted, deleted + kept - 1))
    assert list(inclusion_path(leaves[deleted:], index, restored)) == defined_path(index, leaves)
    for leaf in leaves[deleted:]:
        restored.append(leaf)
    assert restored.root() == defined_root(leaves)
    assert len(restored.hashes) == restored.size.bit_count() <= 20


@given(st.integers(1, 300), st.data())
def test_a_path_of_one_line_proves_no_other_place_size_or_leaf(size: int, data: st.DataObject) -> None:
    """Whatever index and size are stated with it."""
    leaves = hashed([b"%d" % number for number in range(size)])
    root, index = defined_root(leaves), data.draw(st.integers(0, size - 1))
    path, other = inclusion_path(leaves, index), data.draw(st.integers(0, 2 * size))
    if other != index:
        assert root_from_path(leaves[index], other, size, path) != root
        if other < size:
            assert root_from_path(leaves[other], index, size, path) != root
    for changed in (path[:-1], (*path, root), path[1:]):
        if changed != path:
            assert root_from_path(leaves[index], index, size, changed) != root


def a_proof(number: int, size: int) -> tuple[Proof, bytes]:
    """A proof for line `number` of a chain of `size` lines, and the root."""
    lines = [line.rstrip(b"\n") for line in raw_lines(size)]
    leaves = hashed(lines)
    return Proof.of(CHAIN, lines[number - 1], size, inclusion_path(leaves, number - 1)), defined_root(leaves)


def test_a_proof_is_accepted_for_its_line_alone_without_the_record() -> None:
    """It is read from its own text, and held against the anchor's size and root."""
    proof, root = a_proof(7, 21)
    assert refusal_of(decode_proof(encode_proof(proof)), 21, root) is None


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        ({"number": 22}, "is number 7"),
        ({"number": 8}, "is number 7"),
        ({"size": 22}, "for a record of 22 lines"),
        ({"path": ()}, "cannot be that of line 7"),
        ({"path": "cut"}, "cannot be that of line 7"),
        ({"path": "longer"}, "cannot be that of line 7"),
        ({"path": ("!",)}, ""),
        ({"path": "first changed"}, "another root"),
        ({"line": "blank"}, "another root"),
        ({"line": "{}"}, "no line of a record"),
    ],
)
def test_a_spoilt_proof_is_refused_with_the_reason(spoilt: dict[str, object], why: str) -> None:
    """Another index, one beyond the size, the size of another anchor, a path cut or longer, a blank at the end."""
    proof, root = a_proof(7, 21)
    changes = dict(spoilt)
    forms = {"cut": proof.path[:-1], "longer": (*proof.path, proof.path[0]), "blank": f"{proof.line} "}
    forms["first changed"] = (proof.path[1], *proof.path[1:])
    changes = {name: forms.get(str(value), value) for name, value in changes.items()}
    refusal = refusal_of(replace(proof, **changes), 21, root)
    assert refusal is not None
    assert why in refusal


def test_a_proof_with_the_index_of_another_line_in_its_line_is_refused() -> None:
    """The line that has number 22 is in no record of 21 lines."""
    proof, root = a_proof(7, 21)
    (line,) = raw_lines(22)[21:]
    refusal = refusal_of(replace(proof, number=22, line=line.decode().rstrip("\n")), 21, root)
    assert refusal == "a path of 5 hashes cannot be that of line 22 of 21"


def test_a_line_as_the_store_writes_it_is_proved_within_two_kilobytes() -> None:
    """Of the longest line of this format, with its escapes."""
    from tests.unit.record.test_line import longest_line

    line = longest_line()
    path = [bytes([255]) * 32] * 20
    text = encode_proof(Proof.of(CHAIN, line, 1_048_576, path))
    assert len(line) > 600
    assert len(text) < 2_048
    assert json.loads(text)["line"] == line.decode()


def test_what_is_no_proof_is_refused_by_name() -> None:
    """As a text that was cut."""
    with pytest.raises(ValueError, match="this is no proof"):
        decode_proof(b'{"chain":')


def test_an_edge_of_the_wrong_number_of_hashes_is_refused() -> None:
    """Three lines have two complete subtrees."""
    with pytest.raises(ValueError, match="a tree of 3 lines has 2 hashes"):
        TreeEdge.decode(3, bytes(96))
