"""The built-in properties: each is refuted by the smallest policy that breaks it, with a witness of the engine."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from time import perf_counter

import pytest

from killswitch.graph.nodes import PolicySet
from killswitch.proof.policy_sets import nothing_reopened, routes_deliver
from killswitch.proof.properties import prove, short_ladders
from killswitch.proof.silence import silent_ranges
from killswitch.proof.solver import VERSION, Prover, SolverMissingError, require_z3
from killswitch.proof.verdicts import ProofVerdict, Situation
from tests.graphs import compiled
from tests.unit.proof.policies import graph_of, policy, set_of, stage

pytest.importorskip("z3", reason="the extra `prove` is not installed")

DD1H = "{signal: equity.drawdown, window: 1h, at_least: 7%, confirm: 2m, on_unknown: hold, grace: 75m}"


def findings(folder: Path, document: str, about: str) -> list[ProofVerdict]:
    found = prove(Prover(perf_counter), graph_of(folder, document))
    return [each for each in found if about in each.property]


def shipped(repository: Path, name: str) -> PolicySet:
    return compiled(repository / "policies" / name)


def test_no_proof_of_a_shipped_policy_is_empty(repository: Path) -> None:
    """The assumptions exclude no state: every stage fires and is reset in some situation that the proofs consider."""
    prover = Prover(perf_counter)
    for folder in sorted(each for each in (repository / "policies").iterdir() if each.is_dir()):
        for graph in shipped(repository, folder.name).graphs:
            found = Situation(prover, graph)
            for number, each in enumerate(graph.stages):
                in_force = found.before.stage == number
                assert prover.is_impossible(*found.facts, found.step.fired == number) is False
                reset = prover.is_impossible(*found.facts, in_force, found.step.reset)
                assert reset is (each.reset is None)


def test_a_stage_fires_with_a_trace_that_the_engine_replays(tmp_path: Path) -> None:
    """`confirm: 2m` needs two evaluations, two minutes apart, and the last one fires the stage."""
    (found,) = findings(tmp_path, policy(f"a: {DD1H}", stage(1, "any: [a]")), "can fire")
    assert found.outcome == "proved" and found.witness is not None
    assert [each.fired for each in found.witness] == [None, "s1"]
    assert found.witness[-1].seen.now - found.witness[0].seen.now >= 120_000_000


def test_three_ticks_need_three_scheduled_evaluations(tmp_path: Path) -> None:
    """A push counts no tick, so that the trace of `confirm: 3 ticks` has three scheduled evaluations."""
    trigger = "a: {signal: equity.drawdown, window: 1h, at_least: 7%, confirm: 3 ticks, on_unknown: hold, grace: 75m}"
    (found,) = findings(tmp_path, policy(trigger, stage(1, "any: [a]")), "can fire")
    assert found.witness is not None
    assert sum(each.seen.scheduled for each in found.witness) == 3


def test_a_threshold_below_is_not_monotone(tmp_path: Path) -> None:
    """A stage on a drawdown below 1% is demanded at a small loss and not at a deeper one."""
    trigger = "a: {when: 'equity.drawdown(\"1h\") < 0.01', on_unknown: hold, grace: 75m}"
    (found,) = findings(tmp_path, policy(trigger, stage(1, "any: [a]")), "deeper loss")
    assert found.outcome == "refuted" and found.witness is not None
    assert found.witness[-1].demanded == 0
    assert found.witness[-1].seen.low[0] >= 0.01


def test_a_last_level_that_needs_a_condition_of_the_book_is_not_reached_by_the_loss_alone(tmp_path: Path) -> None:
    """Past 7% with a leverage below 2 nothing fires."""
    triggers = f"a: {DD1H}\nb: {{signal: exposure.leverage, at_least: 2, on_unknown: hold}}"
    (found,) = findings(tmp_path, policy(triggers, stage(1, "all: [a, b]")), "outermost")
    assert found.outcome == "refuted" and found.witness is not None
    last = found.witness[-1]
    assert last.seen.low[0] >= 0.07 and last.demanded == 0 and last.state.level == 0


def test_an_implied_trigger_is_idle(tmp_path: Path) -> None:
    """Under `any`, a fall of 8% in 15 minutes is never confirmed without one of 7% in an hour."""
    other = DD1H.replace("1h", "15m").replace("7%", "8%")
    triggers = f"a: {DD1H}\nb: {other}"
    (found,) = findings(tmp_path, policy(triggers, stage(1, "any: [a, b]")), "idle")
    assert (found.subject, found.outcome) == ("b", "refuted")


def test_a_deeper_threshold_with_a_shorter_confirmation_is_not_idle(tmp_path: Path) -> None:
    """8% at once fires before 7% for two minutes."""
    triggers = f"a: {DD1H}\nb: {{signal: equity.drawdown, window: 1h, at_least: 8%, on_unknown: hold, grace: 75m}}"
    (found,) = findings(tmp_path, policy(triggers, stage(1, "any: [a, b]")), "idle")
    assert found.outcome == "proved"


@pytest.mark.parametrize(("window", "outcome"), [("1h", "proved"), ("15m", "refuted")])
def test_a_reset_needs_a_window_at_least_as_long_as_the_trigger(tmp_path: Path, window: str, outcome: str) -> None:
    """A reset on a calm 15 minutes lifts a stage whose fall of an hour is still true; the axiom of windows decides."""
    reset = f"reset: {{auto: {{when: 'equity.drawdown(\"{window}\") < 0.02', for: 60m}}}}"
    (found,) = findings(tmp_path, policy(f"a: {DD1H}", stage(1, "any: [a]", reset)), "automatic reset")
    assert found.outcome == outcome
    if outcome == "refuted":
        assert found.witness is not None and found.witness[-1].reset
        assert found.witness[-1].moved.triggers.held == 1


def test_a_product_of_signals_is_named_and_what_depends_on_it_is_not_refuted(tmp_path: Path) -> None:
    """The reset of a product cannot be lowered: its property is undecided unless a replay shows a case."""
    trigger = "a: {when: 'equity.drawdown(\"1h\") * exposure.leverage >= 0.2', on_unknown: hold, grace: 75m}"
    graph = graph_of(tmp_path, policy(trigger, stage(1, "any: [a]")))
    found = Situation(Prover(perf_counter), graph)
    assert found.opaque == ['(equity.drawdown("1h") * exposure.leverage) >= 0.2']
    outcomes = {each.property: each for each in prove(Prover(perf_counter), graph)}
    unknown = outcomes["unknown signals are reported"]
    assert unknown.outcome == "undecided" and found.opaque[0] in unknown.text
    assert {each.outcome for each in outcomes.values()} <= {"proved", "undecided"}
    assert all(each.witness is not None for each in outcomes.values() if each.outcome == "proved")


def test_what_contains_no_product_is_proved_beside_it(tmp_path: Path) -> None:
    """Only the stage with the product is undecided; a trace that the engine has replayed rests on no lowering."""
    trigger = "b: {when: 'equity.drawdown(\"1h\") * exposure.leverage >= 0.2', on_unknown: hold, grace: 75m}"
    reset = "reset: {auto: {when: 'equity.drawdown(\"1h\") < 0.02', for: 60m}}"
    stages = f"{stage(1, 'any: [a]', reset)}\n{stage(2, 'any: [b]', reset)}"
    document = policy(f"a: {DD1H}\n{trigger}", stages)
    outcomes = {each.subject: each.outcome for each in findings(tmp_path, document, "automatic reset")}
    assert outcomes == {"s1": "proved", "s2": "undecided"}


def test_a_reset_that_forgets_a_held_trigger_of_all_is_refuted(tmp_path: Path) -> None:
    """The leverage is low for a moment, and the fall of an hour begins anew: 10% is forgotten."""
    triggers = f"a: {DD1H}\nb: {{signal: exposure.leverage, at_least: 2, on_unknown: hold}}"
    reset = "reset: {auto: {when: 'exposure.leverage < 2.0', for: 0s}}"
    (found,) = findings(tmp_path, policy(triggers, stage(1, "all: [a, b]", reset)), "automatic reset")
    assert found.outcome == "refuted" and found.witness is not None
    assert found.witness[-1].reset and found.witness[-1].moved.triggers.held == 1


def test_a_signal_of_lower_levels_only_is_listed_apart(tmp_path: Path) -> None:
    """The peak is read at level 1 only: nothing is proved of it, and it is no verdict."""
    triggers = f"a: {DD1H}\nb: {{signal: equity.drawdown_from_peak, at_least: 5%, on_unknown: hold}}"
    document = policy(triggers, f"{stage(1, 'any: [b]')}\n{stage(2, 'any: [a]')}")
    assert short_ladders(graph_of(tmp_path, document)) == (
        "equity.drawdown_from_peak of any size does not demand level 2, but lower ones only: b",
    )
    assert [each.subject for each in findings(tmp_path, document, "outermost")] == ["a"]


def test_under_all_the_implied_trigger_is_idle(tmp_path: Path) -> None:
    """8% in an hour is never confirmed without 7%: under `all` it is the 7% that changes nothing."""
    triggers = f"a: {DD1H}\nb: {DD1H.replace('7%', '8%')}"
    (found,) = findings(tmp_path, policy(triggers, stage(1, "all: [a, b]")), "idle")
    assert (found.subject, found.outcome) == ("a", "refuted")


def test_a_question_without_time_is_undecided(tmp_path: Path) -> None:
    """An answer of the solver that is neither yes nor no proves nothing."""
    prover = Prover(perf_counter)
    prover.model = lambda *facts: ("unknown", None)  # type: ignore[method-assign] # a solver without an answer
    found = prove(prover, graph_of(tmp_path, policy(f"a: {DD1H}", stage(1, "any: [a]"))))
    assert "undecided" in {each.outcome for each in found if each.property == "a stage can fire"}
    assert not [each for each in found if each.property.startswith("past") and each.outcome == "proved"]


ROUTE = """apiVersion: killswitch.dev/v1
kind: NotificationRoute
metadata: {name: route}
spec: {match: MATCH, targets: [{log: {level: warning}}]}
"""


@pytest.mark.parametrize(
    ("match", "outcome"), [("{}", "proved"), ("{severity: info}", "refuted"), ("{scope: account/a}", "undecided")]
)
def test_a_notice_of_an_unknown_trigger_matches_a_route(tmp_path: Path, match: str, outcome: str) -> None:
    """A route of another severity delivers nothing; one of a named scope may."""
    found = set_of(tmp_path, policy(f"a: {DD1H}", stage(1, "any: [a]")), ROUTE.replace("MATCH", match))
    assert [each.outcome for each in routes_deliver(found)] == [outcome]


def test_silence_while_latched_is_stated_for_each_level(tmp_path: Path) -> None:
    """At level 2 a fall between the two thresholds gets no response."""
    triggers = f"a: {DD1H}\nb: {{signal: equity.drawdown, window: 1h, at_least: 10%, on_unknown: hold, grace: 75m}}"
    stages = f"{stage(1, 'any: [a]')}\n{stage(2, 'any: [b]')}"
    found = silent_ranges(graph_of(tmp_path, policy(triggers, stages)))
    assert found[2] == (
        'While level 2 is in force, equity.drawdown("1h") below 10% gets no response; from 10% only after the cooldown '
        "and at a lower unit value."
    )


def test_a_missing_solver_is_an_error_with_a_way_out() -> None:
    """Without z3 nothing is proved, and the message states how to install it."""

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    with pytest.raises(SolverMissingError, match=r"killswitch\[prove\]"):
        require_z3(missing)


def test_another_version_of_the_solver_is_an_error() -> None:
    """A version that the lowering is not tested with proves nothing."""
    with pytest.raises(SolverMissingError, match=f"needs z3-solver {VERSION}, and 1.0 is installed"):
        require_z3(lambda _: "1.0")


def test_the_extra_installs_the_tested_version(repository: Path) -> None:
    """`pyproject.toml` and the check at run time name one version."""
    assert f'prove = ["z3-solver=={VERSION}"]' in (repository / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("markets", "outcome"), [("[swap, future]", "proved"), ("[spot]", "refuted")])
def test_a_spot_hop_opens_what_another_policy_of_spot_accounts_closes(
    tmp_path: Path, markets: str, outcome: str
) -> None:
    """Holdings sold by way of BTC open BTC for a moment, which a policy of the same spot accounts closes."""
    trigger = f"a: {DD1H}"
    hops, closes = (policy(trigger, stage(1, "any: [a]"), name=name) for name in ("hops", "closes"))
    everywhere = hops.replace("match: {market: [swap, future]}", "match: {}")
    watched = closes.replace("[swap, future]", markets)
    found = set_of(tmp_path, everywhere, watched)
    assert {each.outcome for each in nothing_reopened(found)} == {outcome}
