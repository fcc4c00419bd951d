"""What the tests of the set in force demand of the candidate: its scenarios and its invariants (A2).

They are those of the base, which a change that removes or weakens them cannot take away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from killswitch.deadline import OverTimeError, interrupted_after
from killswitch.graph.invariants import Invariant, compile_invariants
from killswitch.graph.nodes import PolicySet
from killswitch.model.applied_set import ChangeClass
from killswitch.model.snapshot import Snapshot
from killswitch.operations.impact.policy_side import PolicySide
from killswitch.proof.invariants import prove_invariants
from killswitch.proof.solver import Prover, SolverMissingError
from killswitch.scenario.cases import Scenario
from killswitch.scenario.resolve import resolve
from killswitch.scenario.running import run_part

ONE_SCENARIO = 10.0
"""Seconds of one scenario, at most."""
Broken = tuple[ChangeClass, str]


class _NoRecordingError(Exception):
    """Recordings are no part of a set, so that a scenario on one is not run."""


def broken_demands(
    base: PolicySide, head: PolicySide, verdict: ChangeClass, until: float, clock: Callable[[], float]
) -> Iterator[Broken]:
    """What the base satisfies and head does not. `verdict`: what is proved of the change.

    An invariant that no longer holds is a demand that head breaks. A scenario is one example, and adds no class to what
    is found already: of a proved tightening it may only show that something fires earlier. Of a change that is proved
    equivalent it shows that the proof has overlooked something.
    """
    assert base.policies is not None and head.policies is not None  # both compile
    yield from _invariants(base, base.policies, head.policies, until, clock)
    for each in _scenarios(base, base.policies, head.policies, until, clock):
        yield (verdict if verdict != "EQUIVALENT" and each.is_run else "UNDECIDED"), each.text


def _invariants(
    side: PolicySide, base: PolicySet, head: PolicySet, until: float, clock: Callable[[], float]
) -> Iterator[Broken]:
    ours, wrong_before = compile_invariants(side.loaded.documents, base)
    theirs, wrong = compile_invariants(side.loaded.documents, head)
    before = {(each.file, each.line, each.code) for each in wrong_before}
    for each in wrong:
        if (each.file, each.line, each.code) not in before:
            yield "NEITHER", f"an invariant of the base cannot be stated any more: {each.message}"
    changed = [each for each in theirs if _graph(base, each.policy) != _graph(head, each.policy)]
    if not changed:
        return
    try:
        prover = Prover(clock, until=until)
    except SolverMissingError as error:
        yield "UNDECIDED", f"the invariants of the base are not proved: {error}"
        return
    try:
        with interrupted_after(max(1.0, until - clock())):
            yield from list(_violated(prover, changed, ours, base, head))
    except OverTimeError:
        yield "UNDECIDED", "the invariants of the base were not proved in time"


def _graph(policies: PolicySet, name: str) -> object:
    """What a policy compiles to, without the digest of its set."""
    from msgspec.structs import replace

    found = next((each for each in policies.graphs if each.policy == name), None)
    return None if found is None else replace(found, digest="")


def _violated(
    prover: Prover, changed: list[Invariant], ours: tuple[Invariant, ...], base: PolicySet, head: PolicySet
) -> Iterator[Broken]:
    for each in changed:
        outcome = _outcome(prover, head, each)
        if outcome == "proved":
            continue
        same = next((it for it in ours if (it.name, it.policy) == (each.name, each.policy)), None)
        if same is None or _outcome(prover, base, same) == outcome:
            continue
        why = f" ({each.because})" if each.because else ""
        what = "is broken" if outcome == "refuted" else "is no longer proved"
        yield (
            "NEITHER" if outcome == "refuted" else "UNDECIDED",
            (f"{each.policy}: the invariant {each.name} of the base {what}: {each.text}{why}"),
        )


def _outcome(prover: Prover, policies: PolicySet, invariant: Invariant) -> str:
    graph = next(each for each in policies.graphs if each.policy == invariant.policy)
    return next(iter(prove_invariants(prover, graph, (invariant,)))).outcome


class _BrokenScenario(Struct, frozen=True):
    """`is_run`: whether it was run on head, and not only could not be."""

    text: str
    is_run: bool


def _scenarios(
    side: PolicySide, base: PolicySet, head: PolicySet, until: float, clock: Callable[[], float]
) -> Iterator[_BrokenScenario]:
    """Scenarios of the base that it passes and head does not."""
    ours, _ = resolve(side.loaded.documents, base)
    theirs, problems = resolve(side.loaded.documents, head)
    demanded = {each.name: each for each in ours if each.pending is None and each.recording is None}
    able = {each.name: each for each in theirs}
    for name in sorted(demanded.keys() - able.keys()):
        why = next((each.message for each in problems if each.file == demanded[name].place.file), "a name is gone")
        yield _BrokenScenario(f"the scenario {name} of the base cannot be run any more: {why}", is_run=False)
    for name in sorted(demanded.keys() & able.keys()):
        if clock() >= until:
            yield _BrokenScenario("the time was over before all scenarios of the base were run", is_run=False)
            return
        if _fails(head, able[name]) and not _fails(base, demanded[name]):
            yield _BrokenScenario(f"the scenario {name} of the base fails", is_run=True)


def _fails(policies: PolicySet, scenario: Scenario) -> bool:
    (ran,) = run_part(policies, [scenario], _no_recording, _within)
    return ran.result.outcome in ("failed", "error")


def _no_recording(path: str) -> Iterator[Snapshot]:
    raise _NoRecordingError(path)


def _within(run: Callable[[], str]) -> str | None:
    try:
        with interrupted_after(ONE_SCENARIO):
            return run()
    except OverTimeError:
        return None
