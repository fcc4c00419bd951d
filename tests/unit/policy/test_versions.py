"""Versions of documents: an unknown one is named, an older one is converted with its places, a deprecated one warns."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from killswitch.graph.compile import compile_loaded
from killswitch.policy.loader import load
from killswitch.policy.schema.versions import VERSIONS, Deprecation, DocumentVersion, converted, moved, renamed
from killswitch.policy.yaml.parser import Node, parse

V1 = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: fall}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    fall: {signal: equity.drawdown, window: 15m, at_least: 5%, on_unknown: hold}
  stages:
    - {name: lock, level: 1, any: [fall], cooldown: 1h, reset: manual, actions: [{lock_trading: {mode: all}}]}
"""
V2ALPHA = """\
apiVersion: killswitch.dev/v2alpha
kind: Policy
metadata: {name: fall}
spec:
  mode: enforce
  watch: {each: account, match: {}, max_gap: 10m}
  triggers:
    fall: {signal: equity.drawdown, window: 15m, at_least: 5%, on_unknown: hold}
  stages:
    - {name: lock, level: 1, when_any: [fall], cooldown: 1h, reset: manual, actions: [{lock_trading: {mode: all}}]}
"""


def from_v2alpha(root: Node) -> Node:
    """v2alpha calls the scope `watch`, with the longest gap in it, and the list of triggers of a stage `when_any`."""
    moved(root, ("spec", "watch", "max_gap"), ("spec", "max_gap"))
    spec = None if root.pairs is None else root.pairs.get("spec")
    if spec is not None and spec[1].pairs is not None:
        renamed(spec[1], "watch", "scope")
        stages = spec[1].pairs.get("stages")
        for stage in () if stages is None else stages[1].items or ():
            renamed(stage, "when_any", "any")
    return root


GOING = Deprecation(date(2026, 11, 1), date(2027, 5, 1))
TRIAL = {**VERSIONS, "killswitch.dev/v2alpha": DocumentVersion("killswitch.dev/v2alpha", from_v2alpha)}
DEPRECATED = {
    **VERSIONS, "killswitch.dev/v2alpha": DocumentVersion("killswitch.dev/v2alpha", from_v2alpha, GOING),
}  # fmt: skip


def written(folder: Path, text: str) -> Path:
    """A file with this text."""
    file = folder / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("version", ["killswitch.dev/v2", "killswitch.dev/V1", "v1", "killswitch.dev/v2alpha", "2"])
def test_an_unknown_version_is_named_with_those_that_are_read(version: str, tmp_path: Path) -> None:
    """KS1204 at its place, and nothing of the document is used; the others of the file are checked."""
    loaded = load([written(tmp_path, V1.replace("killswitch.dev/v1", version))])
    (found,) = loaded.diagnostics
    assert (found.code, found.line, found.column) == ("KS1204", 1, 13)
    assert f"`{version}` is not a supported version; this release reads `killswitch.dev/v1`" in found.message
    assert loaded.documents == ()


def test_v1_is_read_without_a_warning(tmp_path: Path) -> None:
    """It is no deprecated version, in this release and in every later one."""
    assert VERSIONS["killswitch.dev/v1"].deprecation is None
    assert load([written(tmp_path, V1)]).diagnostics == ()


def test_another_version_means_the_same_after_its_conversion(tmp_path: Path) -> None:
    """The digest is that of the same policy in v1: what follows the loader knows one version."""
    one, _ = compile_loaded(load([written(tmp_path, V1)]))
    other, problems = compile_loaded(load([written(tmp_path, V2ALPHA)], versions=TRIAL))
    assert problems == ()
    assert one is not None
    assert other is not None
    assert other.digest == one.digest


def test_a_mistake_in_a_converted_document_is_at_what_was_written(tmp_path: Path) -> None:
    """Also in a value that the conversion has moved, and below a key that it has renamed."""
    wrong = V2ALPHA.replace("max_gap: 10m", "max_gap: 10").replace("when_any: [fall]", "when_any: [fal]")
    _, found = compile_loaded(load([written(tmp_path, wrong)], versions=TRIAL))
    places = [(each.code, each.line, each.column) for each in found if each.severity == "error"]
    line = wrong.splitlines()
    assert places == [
        ("KS2101", 6, line[5].index("10}") + 1),
        ("KS3010", 10, line[9].index("fal]") + 1),
    ]


def test_a_key_of_another_version_is_unknown_in_v1(tmp_path: Path) -> None:
    """A version is that of a whole document."""
    codes = [
        each.code for each in load([written(tmp_path, V1.replace("scope:", "watch:"))], versions=TRIAL).diagnostics
    ]
    assert sorted(codes) == ["KS2001", "KS2002"]


def test_a_deprecated_version_is_a_warning_with_its_dates(tmp_path: Path) -> None:
    """The set compiles; the warning is at the version."""
    policy_set, found = compile_loaded(load([written(tmp_path, V2ALPHA)], versions=DEPRECATED))
    assert policy_set is not None
    (warning,) = found
    assert (warning.code, warning.severity, warning.line) == ("KS1209", "warning", 1)
    assert warning.message == "`killswitch.dev/v2alpha` is deprecated since 2026-11-01, and is read until 2027-05-01"
    assert warning.fix == "write it as `killswitch.dev/v1`, which is read for ever"


def test_a_conversion_that_loses_the_version_is_a_defect() -> None:
    """ValueError, and no document without a version."""
    (root,) = parse(V2ALPHA, lambda _: None)
    with pytest.raises(ValueError, match="the conversion of x loses `apiVersion`"):
        converted(root.node, DocumentVersion("x", lambda node: Node(node.span, "text")))
