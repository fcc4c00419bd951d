"""Small policies as text, compiled."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

from killswitch.graph.nodes import Graph, PolicySet
from tests.graphs import compiled

HEAD = """apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: NAME}
spec:
  mode: enforce
  scope: {each: account, match: {market: [swap, future]}}
  max_gap: 10m
"""
ALL = "[{close: {side: both, fraction: 100%}}]"


def policy(triggers: str, stages: str, name: str = "test", spec: str = "") -> str:
    """A policy document with these triggers and stages, one a line."""
    lines = "\n".join(f"- {each.strip()}" for each in stages.strip().splitlines())
    named = "\n".join(each.strip() for each in triggers.strip().splitlines())
    head = HEAD.replace("NAME", name) + (f"  {spec}\n" if spec else "")
    return f"{head}  triggers:\n{indent(named, '    ')}\n  stages:\n{indent(lines, '    ')}\n"


def stage(level: int, when: str, more: str = "", *, actions: str = ALL, cooldown: str = "30m") -> str:
    """A stage in one line, named after its level; it is reset by hand unless `more` differs."""
    reset = "" if "reset:" in more else "reset: manual, "
    extra = f"{more}, " if more else ""
    return f"{{name: s{level}, level: {level}, {when}, cooldown: {cooldown}, {reset}{extra}actions: {actions}}}"


def set_of(folder: Path, *documents: str) -> PolicySet:
    """The documents, compiled together."""
    path = folder / "policies.yaml"
    path.write_text("---\n".join(documents), encoding="utf-8")
    return compiled(path)


def graph_of(folder: Path, document: str) -> Graph:
    """The one policy, compiled."""
    return set_of(folder, document).graphs[0]
