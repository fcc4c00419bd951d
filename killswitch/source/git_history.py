"""The commits between the last good one and a candidate: its first-parent line, and what each step of it brings.

Parents are read from the objects themselves, which are hashed again; no graph file, graft or date decides. Dates only
order the search among the ancestors of the last good commit, and a commit that is not found there counts as new.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

from msgspec import Struct

from killswitch.source.git_objects import ObjectReader, RawCommit, parse_commit
from killswitch.source.git_problems import DamagedCloneError, GitSourceError
from killswitch.source.git_request import GitLimits

_SLACK: Final = 30 * 86_400
"""Seconds by which dates may be out of order before an ancestor is verified needlessly."""


class CommitNode(Struct, frozen=True):
    """A commit in the graph, without its message."""

    id: str
    tree: str
    parents: tuple[str, ...]
    at: int


class HistoryStep(Struct, frozen=True):
    """A commit on the first-parent line, and all that it brings, oldest first, itself last."""

    node: CommitNode
    commits: tuple[str, ...]


class CommitGraph:
    """The commits of one clone, read when they are needed."""

    def __init__(self, objects: ObjectReader, limits: GitLimits) -> None:
        self._objects = objects
        self._limits = limits
        self._nodes: dict[str, CommitNode] = {}

    def raw(self, ids: list[str]) -> list[RawCommit]:
        """The commits as written."""
        contents = self._objects.read(ids, "commit", self._limits.object_bytes)
        return [parse_commit(each, content) for each, content in zip(ids, contents, strict=True)]

    def node(self, commit: str) -> CommitNode:
        """One commit. GitSourceError KS8036 once more commits were read than one poll may."""
        known = self._nodes.get(commit)
        if known is None:
            if len(self._nodes) >= self._limits.history:
                text = f"the history has more than {self._limits.history:,} commits that one poll reads"
                raise GitSourceError("KS8036", text, commit=commit)
            (raw,) = self.raw([commit])
            known = self._nodes[commit] = CommitNode(commit, raw.tree, raw.parents, raw.at)
        return known

    def first_parents(self, candidate: str, floor: str) -> list[CommitNode]:
        """The first-parent line from after `floor` to `candidate`, oldest first; empty if they are the same (H2).

        GitSourceError KS8130 for a candidate that is older, KS8131 for one on another line, KS8132 for one that has
        nothing in common.
        """
        line: list[CommitNode] = []
        at = candidate
        while at != floor:
            node = self.node(at)
            line.append(node)
            if not node.parents:
                raise self._aside(candidate, floor, {each.id for each in line})
            at = node.parents[0]
        line.reverse()
        return line

    def steps(self, line: list[CommitNode], floor: str) -> tuple[list[HistoryStep], FloorAncestors]:
        """What each commit of the line brings: all that is reachable from it and neither from the floor nor from an
        earlier one (S1)."""
        ancestors = FloorAncestors(self, floor)
        seen = {floor}
        found: list[HistoryStep] = []
        for node in line:
            found.append(HistoryStep(node, tuple(self._brought(node, seen, ancestors))))
        return found, ancestors

    def _brought(self, node: CommitNode, seen: set[str], ancestors: FloorAncestors) -> list[str]:
        """The new commits of a step, parents before children."""
        seen.add(node.id)
        ordered: list[str] = []
        waiting: list[tuple[CommitNode, int]] = [(node, 0)]
        while waiting:
            at, position = waiting.pop()
            if position == len(at.parents):
                ordered.append(at.id)
                continue
            waiting.append((at, position + 1))
            parent = at.parents[position]
            if parent not in seen:
                seen.add(parent)
                below = self.node(parent)
                if not ancestors.contains(below):
                    waiting.append((below, 0))
        return ordered

    def _aside(self, candidate: str, floor: str, line: set[str]) -> GitSourceError:
        """Why a candidate is not a continuation of the floor; both ids are named."""
        both = f"the last good commit is {floor}, the ref names {candidate}"
        at: str | None = floor
        common = None
        try:
            while at is not None and common is None:
                common = at if at in line else None
                at = next(iter(self.node(at).parents), None)
        except DamagedCloneError:
            common = None  # the host does not have the last good commit any more
        if common == candidate:
            return GitSourceError("KS8130", f"the ref went back to an older commit: {both}", commit=candidate)
        if common is not None:
            text = f"the last good commit is not on the first-parent line, which leaves it at {common}: {both}"
            return GitSourceError("KS8131", text, commit=candidate)
        return GitSourceError(
            "KS8132", f"the history of the ref does not contain the commit in force: {both}", commit=candidate
        )


class FloorAncestors:
    """The ancestors of the last good commit, searched as far as a question needs."""

    def __init__(self, graph: CommitGraph, floor: str) -> None:
        self._graph = graph
        self._found: set[str] = {floor}
        self._waiting: list[tuple[int, str]] = []
        self._floor: str | None = floor

    def contains(self, node: CommitNode, *, is_exact: bool = False) -> bool:
        """Whether a commit is an ancestor. Without `is_exact`, one with a date far from the order of dates may be
        missed, so that it counts as new and is verified."""
        if self._floor is not None:
            self._expand(self._floor)
            self._floor = None
        while node.id not in self._found and self._waiting:
            if not is_exact and -self._waiting[0][0] < node.at - _SLACK:
                return False
            self._expand(heappop(self._waiting)[1])
        return node.id in self._found

    def _expand(self, commit: str) -> None:
        for parent in self._graph.node(commit).parents:
            if parent not in self._found:
                self._found.add(parent)
                heappush(self._waiting, (-self._graph.node(parent).at, parent))
