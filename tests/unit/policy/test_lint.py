"""`ksctl lint`: its rules, its edits, the comments that ignore a finding, and rules of a desk."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins

from killswitch.cli import ksctl
from killswitch.graph.compile import compile_loaded
from killswitch.policy.lint.linting import RULES, lint
from killswitch.policy.lint.own_rules import OwnRules
from killswitch.policy.loader import load

REPOSITORY = Path(__file__).parents[3]
NOW = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z."""

POLICY = """\
apiVersion: killswitch.dev/v1
kind: Policy
metadata: {name: fall, labels: {owner: desk}}
spec:
  mode: enforce
  scope: {each: account, match: {market: swap}}
  max_gap: 10m
  triggers:
    fall: {signal: equity.drawdown, window: 15m, at_least: 5%, on_unknown: hold}
  stages:
    - name: close-everything
      level: 2
      any: [fall]
      cooldown: 1h
      reset: manual
      actions:
        - lock_trading: {mode: reduce_only}
        - cancel_orders: {kind: entry}
        - close: {side: both, fraction: 100%}
      notify: [desk]
      runbook: close-everything
"""

SLIPS = (
    # (code, what is written, what is written instead, line of the finding)
    ("KS7201", "        - lock_trading: {mode: reduce_only}\n", "", 16),
    ("KS7202", "        - cancel_orders: {kind: entry}\n", "", 16),
    ("KS7203", "      notify: [desk]\n", "", 11),
    ("KS7204", "      runbook: close-everything\n", "", 11),
    ("KS7205", "any: [fall]", "any: [fall, fall]", 13),
    ("KS7205", "notify: [desk]", "notify: [desk, night, desk]", 20),
    ("KS7206", "on_unknown: hold", "on_unknown: warn", 9),
    ("KS7210", ", labels: {owner: desk}", "", 3),
    ("KS7211", "at_least: 5%", "at_least: 0.05", 9),
    (
        "KS7212",
        "  stages:\n",
        "    slide: {signal: equity.drawdown, window: 900s, at_least: 5.0%, confirm: 0s, on_unknown: hold}\n"
        "  stages:\n",
        10,
    ),
    ("KS7213", "max_gap: 10m", "max_gap: 15m", 9),
    ("KS7215", "  max_gap", "  disabled: {reason: moving, until: 2025-12-01T00:00:00Z}\n  max_gap", 7),
    (
        "KS7217",
        "  stages:\n",
        "  stages:\n    - name: half\n      level: 3\n      any: [fall]\n      cooldown: 1h\n      reset: manual\n"
        "      actions:\n        - lock_trading: {mode: reduce_only}\n        - cancel_orders: {kind: entry}\n"
        "        - close: {side: both, fraction: 50%}\n      notify: [desk]\n      runbook: close-everything\n",
        19,
    ),
)


def account(name: str, market: str) -> str:
    """An Account document of a paper venue."""
    return (
        f"---\napiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {{name: {name}}}\n"
        f"spec: {{adapter: paper, market: {market}, currency: USDT, execution: observe, endpoint: 'http://127.0.0.1:1'}}\n"
    )


def found_in(folder: Path, text: str, own: OwnRules | None = None) -> list[tuple[str, int]]:
    """(code, line) of each finding of one file, which is valid."""
    (folder / "policy.yaml").write_text(text)
    loaded = load([folder / "policy.yaml"])
    assert [each for each in loaded.diagnostics if each.severity == "error"] == []
    findings = lint(loaded.documents, NOW, own or OwnRules())
    return [(each.diagnostic.code, each.diagnostic.line) for each in findings]


def test_the_policy_of_these_tests_has_no_finding(tmp_path: Path) -> None:
    """So that each slip below is the only cause of its finding."""
    assert found_in(tmp_path, POLICY) == []


@pytest.mark.parametrize(("code", "old", "new", "line"), SLIPS, ids=[f"{it[0]}-{it[3]}" for it in SLIPS])
def test_a_slip_is_found_in_its_line(code: str, old: str, new: str, line: int, tmp_path: Path) -> None:
    """And nothing else is found."""
    assert POLICY.count(old) == 1
    found = found_in(tmp_path, POLICY.replace(old, new))
    assert (code, line) in found
    assert {each for each, _ in found} == {code}


def test_w5_a_close_on_accounts_of_every_market_is_found(tmp_path: Path) -> None:
    """KS7214: with a spot wallet and a futures account in the set; with accounts of one market it may be meant."""
    wide = POLICY.replace("match: {market: swap}", "match: {}")
    assert found_in(tmp_path, wide + account("one", "swap") + account("two", "swap")) == []
    assert found_in(tmp_path, wide + account("one", "swap") + account("two", "spot")) == [("KS7214", 6)]
    named = POLICY.replace("match: {market: swap}", "match: {account: [one]}")
    assert found_in(tmp_path, named + account("one", "swap") + account("two", "spot")) == []


def test_a_document_that_nothing_names_is_found(tmp_path: Path) -> None:
    """KS7216: also one whose name is only similar to the one that is used; a name in an expression is a use."""
    ranking = "---\napiVersion: killswitch.dev/v1\nkind: Ranking\nmetadata: {name: worst-first}\n"
    ranking += "spec: {formula: normalised, window: 48h, weights: {loss: 1}}\n"
    assert found_in(tmp_path, POLICY + ranking) == [("KS7216", 25)]
    used = POLICY.replace("close: {side: both", "close: {rank: worst-first, side: both")
    assert found_in(tmp_path, used + ranking) == []


def test_a_hedge_that_nothing_names_is_used_by_every_close(tmp_path: Path) -> None:
    """Its legs are closed as one position, whether or not a trigger reads `hedge.broken`."""
    hedge = "---\napiVersion: killswitch.dev/v1\nkind: HedgeGroup\nmetadata: {name: carry}\nspec:\n  legs:\n"
    hedge += "    - {account: a, symbol: BTC_USDT, ratio: 1}\n    - {account: b, symbol: BTC_USDT, ratio: 1}\n"
    assert found_in(tmp_path, POLICY + hedge) == []


def test_no_shipped_policy_has_a_finding() -> None:
    """A rule that our own sets break is no rule."""
    for folder in sorted(path for path in (REPOSITORY / "policies").iterdir() if path.is_dir()):
        assert lint(load([folder]).documents, NOW, OwnRules()) == (), folder


@pytest.mark.parametrize(
    "verb", [["lint", "--strict"], ["fmt", "--check"], ["validate", "--strict"]], ids=lambda it: it[0]
)
def test_the_shipped_policies_pass_what_a_desk_runs(verb: tuple[str, str]) -> None:
    """All sets as one, with the exit code of the command itself."""
    done = CliRunner().invoke(ksctl, [*verb, str(REPOSITORY / "policies")])
    assert done.exit_code == 0, done.output


def test_rules_have_codes_of_their_own() -> None:
    """In ascending order."""
    codes = [rule.code for rule in RULES]
    assert codes == sorted(set(codes))


def run(*args: str | Path) -> Any:
    """`ksctl lint` with these arguments."""
    return CliRunner().invoke(ksctl, ["lint", *map(str, args)])


def digest(file: Path) -> str:
    """The digest of the compiled set."""
    policy_set, _ = compile_loaded(load([file]))
    assert policy_set is not None
    return policy_set.digest


def test_fix_corrects_what_has_one_correction(tmp_path: Path) -> None:
    """Shares, names listed twice, and what is over; comments stay, and the result is what was meant."""
    file = tmp_path / "policy.yaml"
    disabled = "  # until the move\n  disabled: {reason: moving, until: 2025-12-01T00:00:00Z}\n  max_gap"
    odd = POLICY.replace("at_least: 5%", "at_least: 0.05").replace("any: [fall]", "any: [fall, fall]  # both")
    odd = odd.replace("notify: [desk]", "notify:\n        - desk\n        - desk").replace("  max_gap", disabled)
    file.write_text(odd)
    done = run(file, "--fix", "--strict")
    assert done.exit_code == 0, done.output
    assert "ok: 0 errors, 0 warnings in 1 document" in done.output
    meant = POLICY.replace("any: [fall]", "any: [fall]  # both").replace("notify: [desk]", "notify:\n        - desk")
    assert file.read_text() == meant.replace("  max_gap", "  # until the move\n  max_gap")


def test_a_share_with_its_percent_sign_is_the_same_policy(tmp_path: Path) -> None:
    """The edit of KS7211 leaves the digest as it is."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.replace("at_least: 5%", "at_least: 0.05"))
    before = digest(file)
    assert run(file, "--fix").exit_code == 0
    assert "at_least: 5%" in file.read_text()
    assert digest(file) == before


def test_no_edit_takes_a_comment_away(tmp_path: Path) -> None:
    """A name listed twice stays where a comment is between the two."""
    file = tmp_path / "policy.yaml"
    odd = POLICY.replace("notify: [desk]", "notify:\n        - desk\n        # at night\n        - desk")
    file.write_text(odd)
    done = run(file, "--fix")
    assert (done.exit_code, file.read_text()) == (0, odd)
    assert "1 warning" in done.output


def test_exit_codes_follow_the_table(tmp_path: Path) -> None:
    """0 with warnings, 3 with --strict, 1 for an error, 64 for wrong usage."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.replace("      runbook: close-everything\n", ""))
    assert run(file).exit_code == 0
    assert run(file, "--strict").exit_code == 3
    file.write_text(POLICY.replace("at_least", "at_lest"))
    failed = run(file)
    assert failed.exit_code == 1
    assert "nothing was linted" in failed.output
    assert "KS2001" in failed.output
    assert run(tmp_path / "missing").exit_code == 1


def test_a_comment_with_a_reason_ignores_one_finding_of_its_line(tmp_path: Path) -> None:
    """Behind the value, or on a line of its own above it."""
    without = POLICY.replace("      runbook: close-everything\n", "").replace("      notify: [desk]\n", "")
    name = "    - name: close-everything\n"
    assert found_in(tmp_path, without) == [("KS7203", 11), ("KS7204", 11)]
    behind = without.replace(name, "    - name: close-everything  # ksctl: ignore KS7204: the desk knows\n")
    assert found_in(tmp_path, behind) == [("KS7203", 11)]
    above = without.replace(name, f"    # ksctl: ignore KS7203, KS7204: the desk knows\n    # and says so\n{name}")
    assert found_in(tmp_path, above) == []


def test_a_comment_without_a_reason_ignores_nothing(tmp_path: Path) -> None:
    """KS7290, next to the finding itself; also without a code."""
    without = POLICY.replace("      runbook: close-everything\n", "")
    name = "name: close-everything\n"
    for comment in ("# ksctl: ignore KS7204", "# ksctl: ignore KS7204:  ", "# ksctl: ignore"):
        found = found_in(tmp_path, without.replace(name, f"name: close-everything  {comment}\n"))
        assert sorted(found) == [("KS7204", 11), ("KS7290", 11)]


def test_a_comment_that_ignores_nothing_is_found(tmp_path: Path) -> None:
    """KS7291 once the finding is gone, KS7292 for a code that no rule has."""
    name = "name: close-everything\n"
    unused = POLICY.replace(name, "name: close-everything  # ksctl: ignore KS7204: the desk knows\n")
    assert found_in(tmp_path, unused) == [("KS7291", 11)]
    unknown = POLICY.replace(name, "name: close-everything  # ksctl: ignore KS704: the desk knows\n")
    assert found_in(tmp_path, unknown) == [("KS7292", 11)]


RULE_FILE = """\
apiVersion: killswitch.dev/v1
kind: LintRules
rules:
  - code: DESK1
    each: spec.triggers
    when: 'has(item.at_least) && number(item.at_least) > 0.04 && key.startsWith("fa")'
    message: a threshold above 4%
    fix: write a smaller one
  - code: DESK2
    severity: error
    each: spec.stages
    when: 'seconds(item.cooldown) >= 3600.0'
    message: a long cooldown
    fix: write a shorter one
  - code: DESK3
    when: 'size(docs.filter(d, d.kind == doc.kind)) > 1'
    message: two policies
    fix: keep one
"""


def rules(folder: Path, text: str) -> OwnRules:
    """The rules of a file with this text."""
    (folder / "desk.yml").write_text(text)
    return OwnRules([folder / "desk.yml"])


def test_rules_of_a_desk_see_documents_items_and_the_set(tmp_path: Path) -> None:
    """Each finding is at its item; an error lets `lint` exit 1; a comment ignores it like any other."""
    own = rules(tmp_path, RULE_FILE)
    assert own.problems == []
    assert found_in(tmp_path, POLICY, own) == [("DESK1", 9), ("DESK2", 11)]
    two = f"{POLICY}---\n{POLICY.replace('name: fall', 'name: slide')}"
    assert ("DESK3", 1) in found_in(tmp_path, two, own)
    (tmp_path / "policy.yaml").write_text(POLICY)
    done = run(tmp_path / "policy.yaml", "--rules", tmp_path / "desk.yml")
    assert done.exit_code == 1
    assert "error DESK2: a long cooldown" in done.output
    ignored = POLICY.replace("    - name", "    # ksctl: ignore DESK2: closing takes that long\n    - name")
    assert found_in(tmp_path, ignored, own) == [("DESK1", 9)]


def test_a_rule_without_a_result_is_an_error(tmp_path: Path) -> None:
    """KS7282: a missing key, a text that is no number, a value that is no condition; never a silent pass."""
    for when in ("item.confirm == '2m'", "number(item.signal) > 1.0", "item.signal"):
        text = RULE_FILE.replace(
            """'has(item.at_least) && number(item.at_least) > 0.04 && key.startsWith("fa")'""", f'"{when}"'
        )
        assert ("KS7282", 9) in found_in(tmp_path, POLICY, rules(tmp_path, text))


@pytest.mark.parametrize(
    ("code", "line", "old", "new"),
    [
        ("KS7280", 4, "DESK1", "KS7201"),
        ("KS7280", 9, "DESK2", "DESK1"),
        ("KS7280", 15, "- code: DESK3", "- code: DESK3\n    kinds: [Polic]"),
        ("KS7281", 6, "has(item.at_least) &&", "has(item.at_least &&"),
        ("KS7281", 6, "has(item.at_least) &&", "has(thing.at_least) &&"),
        ("KS7280", 5, "each: spec.triggers", "each: spec.trigger"),
        ("KS7280", 5, "each: spec.triggers", "each: spec.mode"),
        ("KS7280", 5, "each: spec.triggers", "each: stages"),
        ("KS7281", 12, "3600.0", "3600"),
        ("KS2001", 10, "severity: error", "severty: error"),
        ("KS2004", 10, "severity: error", "severity: fatal"),
        ("KS1101", 0, "rules:", "rules: ["),
    ],
)
def test_a_mistake_in_a_file_of_rules_is_found_at_its_place(
    code: str, line: int, old: str, new: str, tmp_path: Path
) -> None:
    """Nothing is linted with half of the rules: exit 1, code, place and way out."""
    own = rules(tmp_path, RULE_FILE.replace(old, new, 1))
    found = [(each.code, each.line) for each in own.problems]
    assert code in [each for each, _ in found]
    assert line == 0 or found == [(code, line + ("kinds" in new))]
    (tmp_path / "policy.yaml").write_text(POLICY)
    done = run(tmp_path / "policy.yaml", "--rules", tmp_path / "desk.yml", "-o", "json")
    assert done.exit_code == 1
    assert json.loads(done.output)["linted"] is False


def test_a_missing_file_of_rules_is_an_error(tmp_path: Path) -> None:
    """KS1001: a check that did not run is no success."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    done = run(tmp_path / "policy.yaml", "--rules", tmp_path / "gone.yaml")
    assert done.exit_code == 1
    assert "error KS1001" in done.output


def test_the_comment_behind_what_is_over_stays(tmp_path: Path) -> None:
    """`disabled` with a comment behind it is taken out by a person."""
    file = tmp_path / "policy.yaml"
    odd = POLICY.replace("  max_gap", "  disabled: {reason: moving, until: 2025-12-01T00:00:00Z}  # ask jo\n  max_gap")
    file.write_text(odd)
    assert run(file, "--fix").exit_code == 0
    assert file.read_text() == odd


def test_what_was_corrected_is_named(tmp_path: Path) -> None:
    """Each file with its number of findings; nothing where nothing was."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.replace("at_least: 5%", "at_least: 0.05").replace("any: [fall]", "any: [fall, fall, fall]"))
    assert f"corrected: {file} (3 findings)" in run(file, "--fix").output
    assert "corrected" not in run(file, "--fix").output
    assert json.loads(run(file, "--fix", "-o", "json").output)["fixed"] == {}


def test_no_file_is_corrected_where_one_cannot_be_written(tmp_path: Path) -> None:
    """Exit 1 with its name."""
    one, two = tmp_path / "a.yaml", tmp_path / "b.yaml"
    odd = POLICY.replace("at_least: 5%", "at_least: 0.05")
    one.write_text(odd)
    two.write_text(odd.replace("name: fall", "name: slide"))
    two.chmod(0o444)
    done = run(tmp_path, "--fix")
    assert done.exit_code == 1
    assert f"{two} is read-only, so that nothing was changed" in done.output
    assert one.read_text() == odd


SHARES = st.decimals(Decimal("0.0001"), Decimal("0.9"), places=4)
NAMES = st.lists(st.sampled_from(["fall", "slide"]), min_size=1, max_size=5)


@given(SHARES, SHARES, NAMES, NAMES, st.sampled_from(["[{}]", "[ {} ]", "[{},]"]), st.booleans())
def test_no_edit_changes_what_a_policy_does(
    first: Decimal, second: Decimal, names: list[str], notified: list[str], brackets: str, formats_first: bool
) -> None:
    """The compiled set is the same but for the digest of what is written; a second run changes nothing.

    Layout and edits may come in either order.
    """
    text = POLICY.replace("at_least: 5%", f"at_least: {first}").replace(
        "  stages:\n",
        f"    slide: {{signal: equity.drawdown, window: 20m, at_least: {second}, on_unknown: hold}}\n  stages:\n",
    )
    text = text.replace("any: [fall]", f"any: {brackets.format(' ,  '.join(names))}")
    text = text.replace("notify: [desk]", "notify:\n" + "".join(f"      - {each}\n" for each in notified).rstrip())
    with TemporaryDirectory() as folder:
        file = Path(folder) / "policy.yaml"
        file.write_text(text)
        before = behaviour(file)
        for verb in (["fmt"], ["lint", "--fix"]) if formats_first else (["lint", "--fix"], ["fmt"]):
            assert CliRunner().invoke(ksctl, [*verb, str(file)]).exit_code == 0
        assert behaviour(file) == before
        after = file.read_text()
        for verb in (["fmt"], ["lint", "--fix"]):
            assert CliRunner().invoke(ksctl, [*verb, str(file)]).exit_code == 0
        assert file.read_text() == after
        assert not {"KS7205", "KS7211"} & {code for code, _ in found_in(Path(folder), after)}


def behaviour(file: Path) -> list[object]:
    """The graphs of a set without places, digest, and names that are notified twice."""
    policy_set, problems = compile_loaded(load([file]))
    assert policy_set is not None, problems
    found = []
    for graph in policy_set.graphs:
        plain = to_builtins(graph, enc_hook=str)
        found.append(_without_places({**plain, "digest": ""}))
    return found


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(each) for key, each in value.items() if key not in ("place", "written")}
    if isinstance(value, list | tuple):
        inside = [_without_places(each) for each in value]
        return list(dict.fromkeys(inside)) if all(isinstance(each, str) for each in inside) else inside
    return value


def test_w5_a_rule_that_could_never_find_anything_is_a_mistake(tmp_path: Path) -> None:
    """A misspelt path has the key that was meant; paths of every kind and shape of a document are known."""
    own = rules(tmp_path, RULE_FILE.replace("spec.triggers", "spec.trigers"))
    assert [each.fix for each in own.problems] == ["write `spec.triggers`"]
    for path in ("spec.stages", "spec.scope.match", "metadata.labels", "spec"):
        assert rules(tmp_path, RULE_FILE.replace("spec.triggers", path)).problems == []
    accounts = RULE_FILE.replace("each: spec.triggers", "kinds: [Account]\n    each: spec.stages")
    assert [each.code for each in rules(tmp_path, accounts).problems] == ["KS7280"]


def test_a_whole_number_beside_seconds_has_its_way_out(tmp_path: Path) -> None:
    """CEL compares no decimal with a whole number, which nobody can know."""
    (problem,) = rules(tmp_path, RULE_FILE.replace("3600.0", "3600")).problems
    assert "compare them with `600.0`, not `600`" in problem.fix
