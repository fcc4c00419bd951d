"""The process of a review: its limits, and what the runner knows when it ends without an answer (P1)."""

from __future__ import annotations

import sys

import pytest

from killswitch.operations.review.child import reviewed
from killswitch.source.candidate import Review
from tests.unit.operations.review.sets import BASE, EQUITY, Files, edited, request
from tests.unit.operations.review.sets import reviewed as reviewed_here

pytest.importorskip("z3", reason="the extra `prove` is not installed")


def test_p1_the_review_in_its_own_process_is_the_same() -> None:
    """P1: the messages lose nothing on their way."""
    head = edited("below: 1000", "below: 500")
    assert reviewed(request(head)) == reviewed_here(head)


def unknown(found: Review) -> bool:
    """Whether the review says nothing but that it knows nothing."""
    (problem,) = found.problems
    is_needy = found.verdict == "UNDECIDED" and found.approvals_needed >= 1
    return is_needy and found.policy_digest is None and problem.code == "KS8322"


@pytest.mark.parametrize(
    "script",
    ["pass", "print('{}x')", "import sys; sys.exit(3)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"],
    ids=["silent", "no JSON", "failed", "killed"],
)
def test_p1_a_process_that_ends_without_an_answer_is_no_verdict(script: str) -> None:
    """P1: whatever ends it, the set in force stays, and nothing reads as approved or harmless."""
    assert unknown(reviewed(request(BASE), (sys.executable, "-c", script)))


def test_p1_a_process_that_never_ends_is_killed_with_all_that_it_started(tmp_path: object) -> None:
    """P1: the whole group, also a child that ignores the end of its parent."""
    script = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], stdout=sys.stdout)\n"
        "time.sleep(600)"
    )
    found = reviewed(
        request(BASE, seconds=0.0), (sys.executable, "-c", script), margin=1.0
    )  # returns once nobody holds its output
    assert unknown(found) and "did not end" in found.problems[0].text


def test_p1_a_program_that_cannot_be_started_is_no_verdict() -> None:
    """P1: also then the answer is a problem, and no exception."""
    assert unknown(reviewed(request(BASE), ("/nowhere/python",)))


def test_no_secret_of_the_runner_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process gets an environment from nothing."""
    monkeypatch.setenv("DESK_API_SECRET", "hunter2")
    script = "import os, sys; sys.exit('hunter2' in os.environ.values() and 'the secret is there' or 'nothing')"
    assert "nothing" in reviewed(request(BASE), (sys.executable, "-c", script)).problems[0].text


def test_a_trust_file_with_mistakes_lets_nobody_approve() -> None:
    """T4: it is a problem with its reason, and no review without approvers that looks like one."""
    found = reviewed(request(edited("below: 1000", "below: 500"), trust=b"version: ["))
    assert unknown(found) and "trust file" in found.problems[0].text


STAGES = "\n".join(
    f"    - {{name: s{n}, level: {1 + n % 9}, any: [t{n}], cooldown: {n + 1}m, "
    "reset: {auto: {when: 'equity.drawdown(\"1h\") < 0.02', for: 60m}}, "
    "actions: [{close: {side: both, fraction: 50%}}]}"
    for n in range(40)
)
TRIGGERS = "\n".join(
    f"    t{n}: {{when: 'equity.drawdown(\"{n + 1}h\") >= 0.0{n % 9 + 1} || equity.value < {n}e3', on_unknown: hold}}"
    for n in range(40)
)
MANY = EQUITY.replace("    low:", f"{TRIGGERS}\n    low:") + STAGES + "\n"
HUGE = " || ".join(f"(equity.drawdown('{n % 50 + 1}h') >= 0.{n:04})" for n in range(1, 240))


def bombs() -> dict[str, tuple[Files, Files]]:
    """Changes that take long, or need much, by what does."""
    deep = "apiVersion: killswitch.dev/v1\nkind: Policy\nmetadata: " + "{a: " * 50_000
    brackets = "a: " + "[" * 200_000
    aliases = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(24)
    )
    cel = EQUITY.replace("low: {signal: equity.value, below: 1000 USDT,", f'low: {{when: "{HUGE}",')
    nested = "!" * 5_000 + "(equity.value < 1.0)"
    return {
        "deep mappings": (BASE, {"floor.yaml": deep}),
        "deep lists": (BASE, {"floor.yaml": brackets}),
        "aliases": (BASE, {"floor.yaml": aliases}),
        "forty stages": ({"floor.yaml": MANY}, {"floor.yaml": MANY.replace(">= 0.01", ">= 0.015")}),
        "huge CEL": ({"floor.yaml": cel}, {"floor.yaml": cel.replace("0.0001", "0.0002")}),
        "deep CEL": (
            BASE,
            {"floor.yaml": EQUITY.replace("signal: equity.value, below: 1000 USDT", f"when: '{nested}'")},
        ),
    }


@pytest.mark.parametrize("name", bombs())
def test_p1_a_bomb_ends_within_its_limits_and_is_no_harmless_change(name: str) -> None:
    """P1: deep YAML, many stages and long conditions end as UNDECIDED, or as a problem; never as nothing to approve."""
    base, head = bombs()[name]
    found = reviewed(request(head, base, seconds=5.0), margin=30.0)
    assert found.verdict in ("UNDECIDED", "NEITHER", "LOOSENING")
    assert found.problems or found.approvals_needed >= 1
