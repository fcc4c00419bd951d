"""The content digest: it depends on the content of documents, never on their spelling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from killswitch.graph.compile import compile_policies
from killswitch.policy.loader import load

POLICY = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: example, labels: {owner: desk, tier: a}}
spec:
  mode: enforce
  scope: {each: account, match: {market: swap}}
  max_gap: 90s
  triggers:
    fall: {signal: equity.drawdown, window: 15m, at_least: 4.5%, confirm: 2m, on_unknown: hold}
    old: {when: 'venue.age > 30', on_unknown: warn}
  stages:
    - name: trim
      level: 1
      any: [fall, old]
      cooldown: 30m
      reset: {auto: {when: 'equity.drawdown("1h") < 0.02', for: 60m}}
      actions: [{close: {side: both, fraction: 50%}}]
"""
RANKING = """\
apiVersion: killswitch.dev/v1
kind: Ranking
metadata: {name: mine}
spec: {formula: normalised, weights: {loss: 0.5, pnl_delta: 1}, window: 15m}
"""


def digest(folder: Path, files: Sequence[str]) -> str:
    folder.mkdir()
    for number, text in enumerate(files):
        (folder / f"{number}.yaml").write_text(text, encoding="utf-8")
    loaded = load([folder])
    policy_set, diagnostics = compile_policies(loaded.documents)
    assert [*loaded.diagnostics, *diagnostics] == []
    assert policy_set is not None
    assert {graph.digest for graph in policy_set.graphs} == {policy_set.digest}
    return policy_set.digest


def edited(old: str, new: str) -> str:
    assert old in POLICY
    return POLICY.replace(old, new)


KEYS_REVERSED = """\
spec:
  stages:
    - actions: [{close: {fraction: 50%, side: both}}]
      reset: {auto: {for: 60m, when: 'equity.drawdown("1h") < 0.02'}}
      cooldown: 30m
      any: [fall, old]
      level: 1
      name: trim
  triggers:
    old: {on_unknown: warn, when: 'venue.age > 30'}
    fall: {on_unknown: hold, confirm: 2m, at_least: 4.5%, window: 15m, signal: equity.drawdown}
  max_gap: 90s
  scope: {match: {market: swap}, each: account}
  mode: enforce
metadata: {labels: {tier: a, owner: desk}, name: example}
kind: Policy
apiVersion: killswitch.dev/v1
"""
SAME = {
    "comments": "# why\n" + edited("  mode: enforce\n", "  mode: enforce   # really\n"),
    "the order of keys": KEYS_REVERSED,
    "a percentage as a fraction": edited("4.5%", "0.045"),
    "a fraction with more zeros": edited("4.5%", "4.50%"),
    "a time in other units": edited("max_gap: 90s", "max_gap: 1m30s"),
    "another quoting": edited("'venue.age > 30'", '"venue.age > 30"'),
    "an expression's layout": edited("'venue.age > 30'", "'venue.age  >  30 '"),
    "a comment in an expression": edited("'venue.age > 30'", "'venue.age > 30 // seconds'"),
    "a default written out": edited(
        "mode: enforce", "mode: enforce\n  unexplained: {tolerance: 0.1%, flow_grace: 60s}"
    ),
    "one value as a list": edited("{market: swap}", "{market: [swap]}"),
}
DIFFERENT = {
    "a threshold": edited("4.5%", "4.6%"),
    "a comparison": edited("at_least", "above"),
    "a time": edited("confirm: 2m", "confirm: 3m"),
    "ticks for a time": edited("confirm: 2m, on_unknown: hold}", "confirm: 2s, on_unknown: hold}"),
    "an answer to unknown": edited("on_unknown: hold", "on_unknown: warn"),
    "an expression": edited("venue.age > 30", "venue.age > 31"),
    "a label": edited("owner: desk", "owner: desc"),
    "the order of a list": edited("[fall, old]", "[old, fall]"),
    "a mode": edited("mode: enforce", "mode: observe"),
    "a name": edited("name: example", "name: exemple"),
}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_the_spelling_of_a_document_does_not_change_the_digest(text: str, tmp_path: Path) -> None:
    """The same content in another spelling has the same digest."""
    assert digest(tmp_path / "a", [text, RANKING]) == digest(tmp_path / "b", [POLICY, RANKING])


@pytest.mark.parametrize("text", DIFFERENT.values(), ids=DIFFERENT)
def test_the_content_of_a_document_changes_the_digest(text: str, tmp_path: Path) -> None:
    """Any other content has another digest."""
    assert digest(tmp_path / "a", [text, RANKING]) != digest(tmp_path / "b", [POLICY, RANKING])


def test_the_layout_of_files_does_not_change_the_digest(tmp_path: Path) -> None:
    """One file or two, in either order; an additional document is another content."""
    apart = digest(tmp_path / "a", [POLICY, RANKING])
    assert digest(tmp_path / "b", [RANKING, POLICY]) == apart
    assert digest(tmp_path / "c", [RANKING + "---\n" + POLICY]) == apart
    assert digest(tmp_path / "d", [POLICY]) != apart


def test_the_digest_is_stable_over_versions(tmp_path: Path) -> None:
    """Decisions refer to it for years: a change here is a change of the format."""
    assert digest(tmp_path / "a", [POLICY, RANKING]) == PINNED


PINNED = "sha256:5e9e0ddb99156b24c673cdeef4c90198c79de61df902b00089043264dcbb9d2d"

ACCOUNT = """\
apiVersion: killswitch.dev/v1
kind: Account
metadata: {name: main}
spec: {adapter: paper, market: swap, currency: USDT, execution: observe}
"""
UNWINDING = """\
apiVersion: killswitch.dev/v1
kind: Unwinding
metadata: {name: default}
spec: {slippage: [{at_most: 2%}], ladder: [{order: limit_ioc}, {order: market}]}
"""
WRITTEN_OUT = """\
apiVersion: killswitch.dev/v1
kind: Unwinding
metadata: {name: default}
spec:
  reasons: []
  slippage: [{at_most: 0.02}]
  ladder: [{order: limit_ioc, widen: 1.0, tries: 1}, {order: market, tries: 1}]
  spot: {via: [BTC, ETH], stables: [USDT, USDC, FDUSD], keep: []}
"""


def test_writing_out_the_defaults_of_unwindings_and_closing_share_does_not_change_the_digest(tmp_path: Path) -> None:
    """So that a set without them has the digest that it had before they existed."""
    bare = digest(tmp_path / "a", [POLICY, ACCOUNT, UNWINDING])
    share = ACCOUNT.replace("observe}", "observe, closing_share: 50%}")
    assert digest(tmp_path / "b", [POLICY, share, WRITTEN_OUT]) == bare


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2%", "3%"),
        ("limit_ioc}", "limit_ioc, tries: 2}"),
        ("{slippage", "{pause: 1s, slippage"),
        ("observe}", "observe, closing_share: 60%}"),
    ],
)
def test_the_content_of_an_unwinding_changes_the_digest(old: str, new: str, tmp_path: Path) -> None:
    """A bound, a try, a pause; and the share of the limits that is reserved for closing."""
    account, unwinding = ACCOUNT.replace(old, new), UNWINDING.replace(old, new)
    assert (account, unwinding) != (ACCOUNT, UNWINDING)
    before = digest(tmp_path / "a", [POLICY, ACCOUNT, UNWINDING])
    assert digest(tmp_path / "b", [POLICY, account, unwinding]) != before
