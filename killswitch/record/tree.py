"""The Merkle tree over the leaves of a chain, and proofs that one line is in it (RFC 6962, section 2.1).

An inner node is SHA-256 of a one byte and its two children; a node without a sibling is its own parent. Of a tree of
any size only its edge is kept: the roots of its complete subtrees, one for each bit of its size, so that 20 hashes are
enough for a million lines.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

import msgspec
from msgspec import Struct

from killswitch.record.line import LineHead, leaf_of, read_head

EMPTY_ROOT: Final = sha256(b"").digest()
"""The root of the tree of no lines (RFC 6962, 2.1)."""
HASH_BYTES: Final = 32
_MOST_LEVELS: Final = 62


def parent_of(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256(01 ‖ left ‖ right)."""
    return sha256(b"\1" + left + right).digest()


class TreeEdge:
    """The edge of a growing tree: the roots of its complete subtrees, the largest first."""

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        """The edge of a tree of `size` leaves. ValueError where these are not as many hashes as it has."""
        self.size = size
        self.hashes = list(hashes)
        if [*map(len, self.hashes)] != [HASH_BYTES] * size.bit_count():
            raise ValueError(f"the edge of a tree of {size} lines has {size.bit_count()} hashes of 32 bytes")

    def append(self, leaf: bytes) -> None:
        """Add a leaf at the end."""
        hashes, full = self.hashes, self.size
        while full & 1:
            leaf = sha256(b"\1" + hashes.pop() + leaf).digest()
            full >>= 1
        hashes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The root of the tree of all leaves so far."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = parent_of(left, root)
        return root

    def encode(self) -> bytes:
        """The hashes, one after the other."""
        return b"".join(self.hashes)

    @classmethod
    def decode(cls, size: int, encoded: bytes) -> TreeEdge:
        """The edge that `encode` wrote. ValueError where it is not one of this size."""
        return cls(size, [encoded[at : at + HASH_BYTES] for at in range(0, len(encoded), HASH_BYTES)])


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root of a tree of these leaves."""
    edge = TreeEdge()
    for leaf in leaves:
        edge.append(leaf)
    return edge.root()


def inclusion_path(leaves: Sequence[bytes], index: int, before: TreeEdge | None = None) -> tuple[bytes, ...]:
    """The siblings on the way from leaf `index` to the root, the lowest first (RFC 6962, 2.1.1).

    `index` counts from 0 over the whole tree. `before`: the edge over the lines before the first of `leaves`, where
    those were deleted. ValueError for an index outside of `leaves`.
    """
    start = 0 if before is None else before.size
    if not start <= index < start + len(leaves):
        raise ValueError(f"line {index + 1} is none of the {len(leaves)} lines after number {start}")
    edge, row, path = [] if before is None else list(before.hashes), list(leaves), []
    while start + len(row) > 1:
        if start & 1:  # the complete subtree to the left is in the edge
            row.insert(0, edge.pop())
            start -= 1
        sibling = (index ^ 1) - start
        if sibling < len(row):
            path.append(row[sibling])
        row = [parent_of(row[at], row[at + 1]) if at + 1 < len(row) else row[at] for at in range(0, len(row), 2)]
        start, index = start >> 1, index >> 1
    return tuple(path)


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that a path leads to; None where no path of this length can be that of `index` in a tree of `size`.

    RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size:
        return None
    place, last, root = index, size - 1, leaf
    for sibling in path:
        if last == 0 or len(sibling) != HASH_BYTES:
            return None
        if place & 1 or place == last:
            root = parent_of(sibling, root)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            root = parent_of(root, sibling)
        place, last = place >> 1, last >> 1
    return root if last == 0 else None


class Proof(Struct, frozen=True):
    """That a line is in a record: its path in the tree of `size` lines, whose root an anchor has.

    `line` is the line without its LF; `path` is in base64, the lowest sibling first.
    """

    chain: str
    number: int
    size: int
    line: str
    path: tuple[str, ...]

    @classmethod
    def of(cls, chain: str, line: bytes, size: int, path: Iterable[bytes]) -> Proof:
        """The proof for a line. ValueError where it is none."""
        head = _head_of(line)
        return cls(chain, head.number, size, line.decode(), tuple(b64encode(each).decode() for each in path))


_PROOFS: Final = msgspec.json.Decoder(Proof)


def encode_proof(proof: Proof) -> bytes:
    """The proof as one line of JSON."""
    return msgspec.json.encode(proof)


def decode_proof(text: bytes) -> Proof:
    """Read a proof. ValueError where it is none."""
    try:
        return _PROOFS.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"this is no proof: {error}") from error


def refusal_of(proof: Proof, size: int, root: bytes) -> str | None:
    """Why a proof does not show that its line is in the tree of `size` lines with this root; None where it does."""
    if proof.size != size:
        return f"the proof is for a record of {proof.size} lines, the anchor is for {size}"
    try:
        head = _head_of(proof.line.encode())
        path = [b64decode(each, validate=True) for each in proof.path]
    except ValueError as error:
        return str(error)
    if head.number != proof.number:
        return f"the proof is for line {proof.number}, its line is number {head.number}"
    if len(path) > _MOST_LEVELS:
        return f"the path has {len(path)} hashes, no tree is that high"
    found = root_from_path(leaf_of(proof.line.encode()), proof.number - 1, size, path)
    if found is None:
        return f"a path of {len(path)} hashes cannot be that of line {proof.number} of {size}"
    return None if found == root else "the path leads to another root than that of the anchor"


def _head_of(line: bytes) -> LineHead:
    head = read_head(line)
    if head is None or head.number < 1:
        raise ValueError("this is no line of a record")
    return head
