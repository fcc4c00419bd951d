"""The versions of documents that can be read, and how an older or trial one becomes the present one.

`killswitch.dev/v1` is read for ever. Any other version is converted while its nodes still have their places, so that
each diagnostic of the converted document is at what was written; everything after the loader knows v1 only. A version
that is to go has dates, and every document of it is a warning until then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date

from msgspec import Struct

from killswitch.policy.schema.document import API_VERSION
from killswitch.policy.yaml.parser import Node


class Deprecation(Struct, frozen=True):
    """Since when a version is deprecated, and the last day on which a release can read it."""

    since: date
    until: date


class DocumentVersion(Struct, frozen=True):
    """A version of documents. `convert` changes the nodes of one document into those of v1; None for v1 itself.

    A node that `convert` makes has the place of what it was made of.
    """

    name: str
    convert: Callable[[Node], Node] | None = None
    deprecation: Deprecation | None = None

    @property
    def notice(self) -> str | None:
        """The message of a document of a deprecated version."""
        if self.deprecation is None:
            return None
        dates = self.deprecation
        return f"`{self.name}` is deprecated since {dates.since}, and is read until {dates.until}"


VERSIONS: Mapping[str, DocumentVersion] = {API_VERSION: DocumentVersion(API_VERSION)}
"""The versions that this release reads, by name."""


def converted(root: Node, version: DocumentVersion) -> Node:
    """The document in v1: the nodes as they are, or converted, with the version that they now have."""
    if version.convert is None:
        return root
    node = version.convert(root)
    if node.pairs is None or "apiVersion" not in node.pairs:
        raise ValueError(f"the conversion of {version.name} loses `apiVersion`")
    key, written = node.pairs["apiVersion"]
    node.pairs["apiVersion"] = key, Node(written.span, API_VERSION, plain=True)
    return node


def renamed(node: Node, old: str, new: str) -> None:
    """Rename a key of a mapping, in its place; nothing where it is not written."""
    if node.pairs is not None and old in node.pairs:
        node.pairs = {new if key == old else key: pair for key, pair in node.pairs.items()}


def moved(node: Node, old: tuple[str, ...], new: tuple[str, ...]) -> None:
    """Move a value to another key, below mappings that exist; nothing where it is not written.

    Both paths lead through mappings; the last key is the one that is moved, and the one that it gets.
    """
    source, target = _at(node, old[:-1]), _at(node, new[:-1])
    if source is not None and target is not None and source.pairs and old[-1] in source.pairs:
        pair = source.pairs.pop(old[-1])
        if target.pairs is not None:
            target.pairs[new[-1]] = pair


def _at(node: Node, path: tuple[str, ...]) -> Node | None:
    for step in path:
        below = None if node.pairs is None else node.pairs.get(step)
        if below is None:
            return None
        node = below[1]
    return node
