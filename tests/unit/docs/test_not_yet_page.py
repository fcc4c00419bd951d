"""What cannot be declared yet: the diagnostics and the page name what comes nearest, and only what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from killswitch.graph.compile import compile_loaded
from killswitch.policy.diagnostics.unsupported import PAGE, UNSUPPORTED, Unsupported
from killswitch.policy.loader import load
from killswitch.signals.catalogue import BY_NAME
from tools.reference.not_yet import declarable, not_yet_page, signals_of, still_missing

POLICY = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: desk}
spec:
  mode: enforce
  scope: {each: account, match: {}}
  max_gap: 10m
  triggers:
    fall: {signal: equity.drawdown, window: 15m, at_least: 10%, on_unknown: hold}
  stages:
    - name: everything
      level: 1
      any: [fall]
      cooldown: 6h
      reset: manual
      actions: [lock_trading: {mode: reduce_only}, close: {side: both, fraction: 100%}]
"""


def fixes(folder: Path, policy: str) -> dict[str, str]:
    """Code → fix of what is wrong with the policy."""
    (folder / "policy.yaml").write_text(policy, encoding="utf-8")
    _, problems = compile_loaded(load([folder]))
    return {problem.code: problem.fix for problem in problems}


def test_every_entry_is_missing_still() -> None:
    """Delete the entry of what a policy can declare now, and run `make reference`."""
    assert [entry.names[0] for entry in set(UNSUPPORTED) - set(still_missing(UNSUPPORTED, declarable()))] == []


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("signal", "equity.drawdown"),
        ("scope", "venue"),
        ("action", "close"),
        ("key", "cooldown"),
        ("document", "Policy"),
    ],
)
def test_an_entry_disappears_once_its_name_can_be_declared(subject: str, name: str) -> None:
    """A signal, a scope, an action, a key and a kind of document that exist are on no such page."""
    entry = Unsupported(subject, (name,), "anything", "nothing")  # type: ignore[arg-type] # the cases are subjects
    assert still_missing([entry], declarable()) == []


def test_what_comes_nearest_exists() -> None:
    """Each signal that an entry offers is in the catalogue."""
    offered = {name for entry in UNSUPPORTED for name in signals_of(entry)}
    assert offered
    assert sorted(offered - BY_NAME.keys()) == []


def test_no_name_has_two_entries_of_one_subject() -> None:
    """The diagnostic of a name is the one of its only entry."""
    names = [(entry.subject, name) for entry in UNSUPPORTED for name in entry.names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("before", "after", "code", "nearest"),
    [
        ("equity.drawdown, window: 15m", "equity.var, window: 15m", "KS3001", "one standard deviation of it"),
        ("each: account", "each: bot", "KS2004", "with a `Strategy` for each bot"),
        ("cooldown: 6h", "cooldown: 6h\n      schedule: weekdays", "KS2001", "a `variant` of the policy"),
        ("lock_trading: {mode: reduce_only}", "stop_loss: {at: 5%}", "KS2001", "while the runner lives"),
        ("kind: Policy", "kind: Calendar", "KS1206", "from whose open"),
    ],
    ids=["signal", "scope", "key", "action", "document"],
)
def test_the_diagnostic_of_what_is_missing_names_what_comes_nearest_and_the_page(
    tmp_path: Path, before: str, after: str, code: str, nearest: str
) -> None:
    """Instead of a similar name that measures something else."""
    fix = fixes(tmp_path, POLICY.replace(before, after))[code]
    assert nearest in fix
    assert f"({PAGE})" in fix


def test_a_misspelt_signal_is_corrected_and_an_unheard_of_one_refers_to_the_page(tmp_path: Path) -> None:
    """`equity.drawdwn` is `equity.drawdown`; nothing is near `sun.spots`."""
    assert fixes(tmp_path, POLICY.replace("drawdown", "drawdwn"))["KS3001"] == "did you mean `equity.drawdown`?"
    assert PAGE in fixes(tmp_path, POLICY.replace("equity.drawdown", "sun.spots"))["KS3001"]


def test_an_expression_gets_the_same_answer(tmp_path: Path) -> None:
    """Also for a call, which no signal without a window is."""
    when = POLICY.replace("reset: manual", "reset: {auto: {when: 'atr(\"BTC\") < 0.5', for: 60m}}")
    assert "from prices sampled on a grid of time" in fixes(tmp_path, when)["KS3001"]


def test_the_page_has_every_entry(repository: Path) -> None:
    """The page at the path that diagnostics name is the generated one."""
    page = (repository / PAGE).read_text(encoding="utf-8")
    assert page == not_yet_page()
    assert [name for entry in UNSUPPORTED for name in entry.names if f"`{name}`" not in page] == []
