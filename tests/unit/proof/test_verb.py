"""`ksctl prove`: what it prints and writes, its exit codes, and what it answers to input that it cannot use."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from click import ClickException
from click.testing import CliRunner, Result

from killswitch.cli import ksctl
from killswitch.cli.policy.comparison_pages import write_file
from killswitch.operations.witness_scenarios import WrittenWitness
from killswitch.proof import solver
from killswitch.proof.solver import Prover, require_z3
from tests.unit.proof.policies import policy, stage

pytest.importorskip("z3", reason="the extra `prove` is not installed")

FALL = "{signal: equity.drawdown, window: 1h, at_least: AT, confirm: 2m, on_unknown: hold, grace: 75m}"
GOOD = policy(f"a: {FALL.replace('AT', '7%')}", stage(1, "any: [a]"))
BROKEN = policy(
    f"a: {FALL.replace('AT', '7%')}\nb: {{signal: exposure.leverage, at_least: 2, on_unknown: hold}}",
    stage(1, "all: [a, b]"),
)
"""Past 7% with a leverage below 2 nothing fires."""
TWO = policy(
    f"a: {FALL.replace('AT', '7%')}\nb: {FALL.replace('AT', '14%')}",
    f"{stage(1, 'any: [a]', cooldown='30m')}\n{stage(2, 'any: [b]')}",
)


def run(*arguments: object) -> Result:
    found = CliRunner().invoke(ksctl, ["prove", *map(str, arguments)])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    assert "Traceback" not in found.output
    return found


def exit_of_test(*paths: object) -> int:
    """The exit code of `ksctl test`."""
    return CliRunner().invoke(ksctl, ["test", "--jobs", "1", *map(str, paths)]).exit_code


def written(folder: Path, text: str, name: str = "policy.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_sound_policy_is_proved_and_exits_0(tmp_path: Path) -> None:
    """Every property is printed with its time, the bound of the search, and what gets no response."""
    found = run(written(tmp_path, GOOD))
    assert found.exit_code == 0, found.output
    assert "0 refuted, 0 undecided" in found.output
    assert "at most 6 evaluations" in found.output and "ms" in found.output
    assert 'No response in normal state to: equity.drawdown("1h") below 7%' in found.output
    assert "······1111" in found.output


def test_a_refuted_policy_exits_1_with_a_scenario_that_passes(tmp_path: Path) -> None:
    """The counterexample is a scenario of the refuted policy, which fails once the policy is mended."""
    path = written(tmp_path / "policies", BROKEN)
    found = run(path, "--witnesses", tmp_path / "found")
    assert found.exit_code == 1
    assert "REFUTED: past the outermost threshold" in found.output
    (scenario,) = (tmp_path / "found").iterdir()
    assert scenario.name == "test-outermost-a.yaml"
    assert str(scenario) in found.output
    assert exit_of_test(path, scenario) == 0
    path.write_text(BROKEN.replace("all: [a, b]", "any: [a]"), encoding="utf-8")
    assert exit_of_test(path, scenario) == 1


def test_traces_reach_each_stage(tmp_path: Path) -> None:
    """With `--traces` each stage has a scenario that fires it; without it a proved policy has none."""
    path = written(tmp_path, TWO)
    assert run(path, "--witnesses", tmp_path / "none").exit_code == 0
    assert not (tmp_path / "none").exists()
    assert run(path, "--witnesses", tmp_path / "traces", "--traces").exit_code == 0
    assert sorted(each.name for each in (tmp_path / "traces").iterdir()) == [
        "test-fires-s1.yaml", "test-fires-s2.yaml",
    ]  # fmt: skip
    assert exit_of_test(path, tmp_path / "traces") == 0


def test_what_no_run_shows_has_a_reason_instead(tmp_path: Path) -> None:
    """An idle trigger is no event of a single run."""
    implied = FALL.replace("1h", "15m").replace("AT", "8%")
    path = written(tmp_path, policy(f"a: {FALL.replace('AT', '7%')}\nb: {implied}", stage(1, "any: [a, b]")))
    found = run(path, "--witnesses", tmp_path / "found")
    assert found.exit_code == 1
    assert "No scenario: that a trigger never changes anything is true of every run" in found.output


def test_a_condition_that_is_never_unknown_has_a_scenario_of_unknown_signals(tmp_path: Path) -> None:
    """`x >= 1 || true` is true while everything is unknown: no notice would ever say that data is missing."""
    always = "a: {when: 'exposure.leverage >= 1.0 || 1 < 2', on_unknown: hold}"
    path = written(tmp_path, policy(always, stage(1, "any: [a]")))
    run(path, "--witnesses", tmp_path / "found", "-o", "json")
    assert any("unknown" in each.name for each in (tmp_path / "found").iterdir())


def test_json_has_every_finding_with_its_time(tmp_path: Path) -> None:
    """Programs read the verdicts, their seconds, their witnesses, the bound, and the silent ranges."""
    answer = json.loads(run(written(tmp_path, BROKEN), "-o", "json").output)
    assert answer["bound"] == {"evaluations": 6, "seconds_of_a_question": 10.0}
    assert all(each["seconds"] >= 0 for each in answer["findings"])
    (refuted,) = [each for each in answer["findings"] if each["outcome"] == "refuted"]
    assert refuted["witness"][-1]["fired"] is None and refuted["scenario"] is None
    two = json.loads(run(written(tmp_path, TWO), "-o", "json").output)
    assert two["silent_ranges"]["test"][1] == {
        "in_force": "level 1", "signal": 'equity.drawdown("1h")',
        "fires": [{"from": 0.07, "level": 1}, {"from": 0.14, "level": 2}],
    }  # fmt: skip


def test_html_draws_the_silence(tmp_path: Path) -> None:
    """In HTML the ranges are a chart in two widths, with the policy's name escaped in it."""
    found = run(written(tmp_path, TWO), "-o", "html")
    assert found.output.count("<svg") == 2
    assert "drawdown(&quot;1h&quot;)" in found.output


@pytest.mark.parametrize(("installed", "words"), [(None, "is not installed"), ("4.8.0", "and 4.8.0 is installed")])
def test_a_missing_or_another_solver_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str | None, words: str
) -> None:
    """Without the tested version of z3 nothing is proved, and the way out is in the message."""

    def version(_name: str) -> str:
        if installed is None:
            raise PackageNotFoundError
        return installed

    monkeypatch.setattr(solver, "require_z3", partial(require_z3, version))
    found = run(written(tmp_path, GOOD))
    assert found.exit_code == 1
    assert words in found.output and "pip install 'killswitch[prove]'" in found.output


def test_what_is_not_decided_in_time_is_undecided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A solver that needs longer than `--limit` proves nothing: exit 1, and what to simplify."""

    def late(self: Prover, *_facts: object) -> tuple[str, None]:
        self.unanswered += 1
        return "unknown", None

    monkeypatch.setattr(Prover, "model", late)
    found = run(written(tmp_path, TWO), "--limit", "0.05")
    assert found.exit_code == 1
    assert "UNDECIDED: a stage can fire" in found.output
    assert "0.05 s" in found.output and "raise --limit, or simplify" in " ".join(found.output.split())


def test_what_is_not_decided_in_the_time_of_all_questions_is_undecided(tmp_path: Path) -> None:
    """A millisecond is over before the first question is asked: nothing is proved, and the way out is named."""
    found = run(written(tmp_path, GOOD), "--timeout", "1ms")
    assert found.exit_code == 1
    assert "UNDECIDED: a stage can fire" in found.output
    assert "raise --timeout" in " ".join(found.output.split())


def test_a_scenario_is_written_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full in the middle of the second writing: the file of the first is still whole."""
    folder = tmp_path / "found"
    at = write_file(folder, WrittenWitness("one", "kind: Scenario\n", ""))
    write_text = Path.write_text

    def half(self: Path, text: str, **more: Any) -> int:
        write_text(self, text[: len(text) // 2], **more)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(ClickException, match="No space left on device"):
        write_file(folder, WrittenWitness("one", "kind: Scenario\nmetadata: {name: other}\n", ""))
    assert at.read_text(encoding="utf-8") == "kind: Scenario\n"
    assert [each.name for each in folder.glob("*.yaml")] == ["one.yaml"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--traces",), 2, "--traces belongs to --witnesses"),
        (("--limit", "0"), 2, "--limit"),
        (("--against", "no-such-revision"), 1, "name a file, a folder, or a revision"),
        (("--against", "missing.yaml"), 1, "name a file, a folder, or a revision"),
    ],
)
def test_wrong_usage_and_a_bad_ref(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    """Wrong usage is an error of usage, which the program answers with 64; what cannot be read exits 1."""
    found = run(written(tmp_path, GOOD), *arguments)
    assert found.exit_code == code, found.output
    assert words in " ".join(found.output.split())


def test_a_mistake_in_a_policy_or_an_invariant_is_shown_with_its_place(tmp_path: Path) -> None:
    """Nothing is proved of a set with errors: exit 1, code, place and way out."""
    found = run(written(tmp_path, GOOD.replace("any: [a]", "any: [b]")))
    assert found.exit_code == 1 and "KS3010" in found.output
    head = "apiVersion: killswitch.dev/v1\nkind: Invariant\nmetadata: {name: it}\n"
    wrong = f"{head}spec: {{policies: [tset], holds: '1 < 2'}}\n"
    written(tmp_path, GOOD)
    written(tmp_path, wrong, "invariants.yaml")
    found = run(tmp_path)
    assert found.exit_code == 1 and "KS7301" in found.output and "invariants.yaml:4" in found.output
    assert CliRunner().invoke(ksctl, ["validate", str(tmp_path)]).exit_code == 1


def test_a_folder_without_a_policy_is_an_error(tmp_path: Path) -> None:
    """There is nothing to prove, which is no success."""
    head = "apiVersion: killswitch.dev/v1\nkind: NotificationRoute\nmetadata: {name: r}\n"
    route = f"{head}spec: {{match: {{}}, targets: [{{log: {{level: warning}}}}]}}\n"
    found = run(written(tmp_path, route))
    assert found.exit_code == 1 and "no policy to prove" in found.output


LOOSER = TWO.replace("at_least: 7%", "at_least: 8%")
NEITHER = LOOSER.replace("at_least: 14%", "at_least: 13%")


@pytest.mark.parametrize(
    ("head", "word", "code", "files"),
    [
        (TWO, "EQUIVALENT", 0, 0),
        (TWO.replace("at_least: 7%", "at_least: 6%"), "TIGHTENING", 0, 1),
        (LOOSER, "LOOSENING", 1, 1),
        (NEITHER, "NEITHER", 1, 2),
        (
            TWO.replace("cooldown: 30m, reset: manual, actions", "cooldown: 1h, reset: manual, actions", 1),
            "LOOSENING",
            1,
            1,
        ),
        (TWO.replace("fraction: 100%", "fraction: 50%", 1), "LOOSENING", 1, 1),
    ],
)
def test_each_direction_of_a_comparison_has_its_scenario(
    tmp_path: Path, head: str, word: str, code: int, files: int
) -> None:
    """A scenario of each difference passes with the head, and fails with the base."""
    base, changed = written(tmp_path / "base", TWO), written(tmp_path / "head", head)
    found = run(changed, "--against", base, "--witnesses", tmp_path / "found")
    assert (found.exit_code, word in found.output) == (code, True), found.output
    scenarios = sorted((tmp_path / "found").iterdir()) if (tmp_path / "found").exists() else []
    assert len(scenarios) == files, found.output
    for each in scenarios:
        assert exit_of_test(changed, each) == 0
        assert exit_of_test(base, each) == 1


GATED = TWO.replace("reset: manual, actions", 'reset: {auto: {when: "AT < 0.02", for: 5m}}, actions', 1).replace(
    "AT", "equity.drawdown('1h')"
)
"""Level 1 is reset after five calm minutes, but not before its cooldown of 30 minutes is over."""


@pytest.mark.parametrize(
    ("changed", "ends"),
    [
        # fires again at a new loss after 10 minutes, and is reset after 10 minutes
        (("cooldown: 30m", "cooldown: 10m"), {("does nothing", "fires s1"), ("does nothing", "resets")}),
        (("for: 5m", "for: 45m"), {("resets", "does nothing")}),
        (("< 0.02", "< 0.01"), {("resets", "does nothing")}),
    ],
)
def test_a_changed_memory_is_shown_by_runs_in_which_nothing_else_differs(
    tmp_path: Path, changed: tuple[str, str], ends: set[tuple[str, str]]
) -> None:
    """The last evaluation is the first at which base and head do different things."""
    base = written(tmp_path / "base", GATED)
    head = written(tmp_path / "head", GATED.replace(*changed, 1))
    answer = json.loads(run(head, "--against", base, "--witnesses", tmp_path / "found", "-o", "json").output)
    assert answer["verdict"] == "NEITHER"
    found = set()
    for each in answer["changes"][0]["witnesses"]:
        did = [[_does(record) for record in each[who]] for who in ("base", "head")]
        assert did[0][:-1] == did[1][:-1]
        found.add((did[0][-1], did[1][-1]))
    assert found == ends
    scenarios = list((tmp_path / "found").iterdir())
    assert len(scenarios) == len(ends)
    for scenario in scenarios:
        assert (exit_of_test(head, scenario), exit_of_test(base, scenario)) == (0, 1)


def _does(record: dict[str, object]) -> str:
    return f"fires {record['fired']}" if record["fired"] else "resets" if record["reset"] else "does nothing"


def test_a_git_revision_is_compared_with(tmp_path: Path) -> None:
    """REF may be a revision of the repository of the paths."""
    path = written(tmp_path, TWO)
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=jo", "-c", "user.email=jo@example.org", "commit", "-qm", "a"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    path.write_text(LOOSER, encoding="utf-8")
    found = run(path, "--against", "HEAD")
    assert found.exit_code == 1 and "LOOSENING" in found.output


def test_a_comparison_as_json_names_both_runs(tmp_path: Path) -> None:
    """Programs read the verdict, its parts, and what base and head did on the same inputs."""
    base, changed = written(tmp_path / "base", TWO), written(tmp_path / "head", LOOSER)
    answer = json.loads(run(changed, "--against", base, "-o", "json").output)
    assert (answer["verdict"], answer["parts"]["demand"], answer["parts"]["memory"]) == (
        "LOOSENING", "LOOSENING", "EQUIVALENT",
    )  # fmt: skip
    (runs,) = answer["changes"][0]["witnesses"]
    assert (runs["base"][-1]["fired"], runs["head"][-1]["fired"]) == ("s1", None)


def test_the_shipped_invariants_are_proved(repository: Path) -> None:
    """Each invariant beside a shipped policy is true of it."""
    for name in ("circuit-breaker", "venue-trouble"):
        answer = json.loads(run(repository / "policies" / name, "-o", "json").output)
        found = [each["outcome"] for each in answer["findings"] if each["property"] == "an invariant holds"]
        assert found and set(found) == {"proved"}


def test_each_witness_of_a_shipped_policy_is_a_scenario_that_passes(repository: Path, tmp_path: Path) -> None:
    """Each stage of each shipped policy is reached in a scenario, and each refutation by a run is shown in one."""
    policies = repository / "policies"
    answer = json.loads(run(policies, "--witnesses", tmp_path, "--traces", "-o", "json").output)
    of_runs = [each for each in answer["findings"] if each["witness"] is not None]
    stages = [each for each in of_runs if each["property"] == "a stage can fire"]
    assert len(stages) == sum(each["property"] == "a stage can fire" for each in answer["findings"])
    assert len(of_runs) > len(stages) > 30
    assert all(each["scenario"].startswith("Scenario: ") for each in of_runs)
    assert len(list(tmp_path.iterdir())) == len(of_runs)
    assert exit_of_test(policies, tmp_path) == 0
