"""What is known of lines that retention has removed: enough to verify the rest, and nothing of what they said.

A checkpoint has the number and leaf of the last line that was removed, the edge of the tree over all lines up to it,
and the epochs declared in them. A line of the record names it by its SHA-256 before anything is removed: a checkpoint
that no line names covers up a cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

import msgspec
from msgspec import Struct

from killswitch.record.anchors import DeclaredEpoch
from killswitch.record.line import NO_LEAF, content_of, digest_of, keys_of, leaf_of
from killswitch.record.tree import TreeEdge


class Start(Struct, frozen=True):
    """Where a record begins: the number and leaf of the line before the first one kept, and the edge of the tree there.

    `chain`: its id there. `epochs`: those declared up to there. `digest`: SHA-256 of the checkpoint that has all this.
    """

    number: int = 0
    leaf: bytes = NO_LEAF
    hashes: tuple[bytes, ...] = ()
    chain: str | None = None
    epochs: tuple[DeclaredEpoch, ...] = ()
    digest: str | None = None


class _Checkpoint(Struct, frozen=True):
    """The keys of a checkpoint. `deleted`: SHA-256 over the lines from `first` to `number`, each with its LF."""

    number: int
    leaf: str
    edge: tuple[str, ...]
    chain: str
    deleted: str
    first: int = 1
    epochs: tuple[DeclaredEpoch, ...] = ()


_CHECKPOINTS: Final = msgspec.json.Decoder(_Checkpoint)


def read_checkpoint(content: bytes) -> Start:
    """Where a record begins by the bytes of its checkpoint. ValueError where they are none."""
    try:
        found = _CHECKPOINTS.decode(content)
        hashes = tuple(bytes.fromhex(each) for each in found.edge)
        edge = TreeEdge(found.number, hashes)
        start = Start(edge.size, bytes.fromhex(found.leaf), hashes, found.chain, found.epochs, digest_of(content))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"this is no checkpoint: {error}") from error
    if start.number < 1 or len(start.leaf) != len(NO_LEAF):
        raise ValueError("this is no checkpoint: it has no line")
    return start


class RemovedLines:
    """Folds the lines that retention removes, in their order, to the checkpoint that is left of them."""

    def __init__(self, start: Start | None = None) -> None:
        """`start`: where the record begins now."""
        start = Start() if start is None else start
        self.first = start.number + 1
        self.chain = start.chain
        self.newest = ""
        """The time of the newest line."""
        self._edge = TreeEdge(start.number, start.hashes)
        self._leaf = start.leaf
        self._epochs = list(start.epochs)
        self._deleted = sha256()

    @property
    def number(self) -> int:
        """The number of the last line."""
        return self._edge.size

    @property
    def count(self) -> int:
        """How many lines."""
        return self.number - self.first + 1

    @property
    def root(self) -> str:
        """The root of the tree of all lines up to the last one."""
        return self._edge.root().hex()

    def add(self, text: bytes) -> None:
        """Add the next line, without its LF."""
        self._leaf = leaf_of(text)
        self._edge.append(self._leaf)
        self._deleted.update(text + b"\n")
        content = content_of(text)
        if content is None:
            return
        self.newest = content.at
        if content.kind == "epoch" and content.chain is not None:
            self._epochs.append(epoch_in(text, self.number, content.chain))
        if content.kind in ("chain", "epoch"):
            self.chain = content.chain

    def add_all(self, lines: Iterable[bytes]) -> RemovedLines:
        """Add lines, without their LF."""
        for text in lines:
            self.add(text)
        return self

    def checkpoint(self) -> bytes:
        """The checkpoint, whose digest a line of the record names."""
        edge = tuple(each.hex() for each in self._edge.hashes)
        deleted, chain = self._deleted.hexdigest(), self.chain or ""
        found = _Checkpoint(self.number, self._leaf.hex(), edge, chain, deleted, self.first, tuple(self._epochs))
        return msgspec.json.format(msgspec.json.encode(found)) + b"\n"


def epoch_in(text: bytes, number: int, chain: str) -> DeclaredEpoch:
    """The epoch that a line declares, which continues the record as `chain`."""
    keys = keys_of(text) or {}
    newest = keys.get("newest_anchor")
    return DeclaredEpoch(number, str(keys.get("before")), chain, newest if type(newest) is int else None)
