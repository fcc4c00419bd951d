"""The review of a candidate: its class and reasons, its mistakes, the demands of the base, arrival and approvals."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from killswitch.model.applied_set import folder_digest
from killswitch.model.instant import DAY, HOUR
from killswitch.model.snapshot import encode_snapshot
from killswitch.model.store import TickRecord
from killswitch.operations.review.child import reviewed as child_reviewed
from killswitch.planning.interpreter import Interpreter
from killswitch.proof import solver
from killswitch.source.candidate import FirstParentStep, Review
from killswitch.source.statements import Statement
from killswitch.store.sqlite import open_store
from tests.graphs import compiled
from tests.unit.operations.review.sets import (
    BASE,
    EQUITY,
    INVARIANT,
    SCENARIO,
    Files,
    edited,
    files,
    request,
    reviewed,
)
from tests.unit.source.approval_keys import NOW, Signer, ssh_signer, trust_of
from tests.worlds import START, account, after, position, snapshot

pytest.importorskip("z3", reason="the extra `prove` is not installed")

HARDER, SOFTER = edited("below: 1000", "below: 1500"), edited("below: 1000", "below: 500")


@pytest.mark.parametrize(
    ("head", "verdict"),
    [
        (BASE, "EQUIVALENT"), (edited("# nothing", "#", EQUITY + "# nothing\n"), "EQUIVALENT"), (HARDER, "TIGHTENING"),
        (SOFTER, "LOOSENING"), (edited("1000 USDT", "1000.00 USDT"), "EQUIVALENT"),
        (edited("mode: enforce", "mode: observe"), "LOOSENING"), (edited("max_gap: 10m", "max_gap: 1h"), "UNDECIDED"),
        ({"other/name.yaml": EQUITY}, "EQUIVALENT"),
    ],
    ids=["same", "comment", "harder", "softer", "spelling", "observe", "max_gap", "another file"],
)  # fmt: skip
def test_a1_the_runner_classifies_a_change_by_itself(head: Files, verdict: str) -> None:
    """A1: by what is proved of the texts; layout, comments and file names are no difference."""
    found = reviewed(head)
    assert (found.verdict, found.problems) == (verdict, ())
    assert found.approvals_needed == (0 if verdict in ("EQUIVALENT", "TIGHTENING") else 1)
    assert found.policy_digest is not None


@pytest.mark.parametrize("path", ["floor.txt", ".floor.yaml", ".hidden/floor.yaml"])
def test_a2_a_document_that_is_no_longer_loaded_comes_first(path: str) -> None:
    """A2: for whatever reason it is not loaded, and before every other change."""
    second = EQUITY.replace("name: floor", "name: second")
    found = reviewed({"second.yaml": second.replace("1000", "900"), path: EQUITY}, {**BASE, "second.yaml": second})
    assert found.verdict in ("LOOSENING", "NEITHER")
    assert "the Policy floor is no longer loaded" in found.why[0]


def test_a2_removed_triggers_are_named() -> None:
    """A2: a trigger that is gone is a reason of its own, whatever the proof finds."""
    found = reviewed({"floor.yaml": EQUITY.replace("any: [low, high]", "any: [low]").replace("    high:", "#")})
    assert any("high" in line and "removed" in line for line in found.why)
    assert found.verdict not in ("EQUIVALENT", "TIGHTENING")


def test_r6_at_rest_an_undeclared_rename_is_a_removal() -> None:
    """R6: what a stage or a trigger remembers goes with its name, so that no proof makes a rename harmless."""
    renamed = EQUITY.replace("    low:", "    lower:").replace("[low,", "[lower,")
    for head in (edited("name: stop", "name: halt"), {"floor.yaml": renamed}):
        found = reviewed(head)
        assert found.verdict not in ("EQUIVALENT", "TIGHTENING")
        assert any("removed" in line for line in found.why)


def test_a1_without_the_prover_a_change_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """A1: the reason names what is missing. What has not changed at all needs no prover."""

    def missing() -> None:
        raise solver.SolverMissingError("`ksctl prove` needs z3")

    monkeypatch.setattr("killswitch.proof.solver.require_z3", missing)
    assert reviewed(HARDER).verdict == "UNDECIDED"
    assert any("needs z3" in line for line in reviewed(HARDER).why)
    assert reviewed(edited("# nothing", "#", EQUITY + "# nothing\n")).verdict == "EQUIVALENT"


def test_a1_a_proof_that_runs_out_of_time_is_undecided() -> None:
    """A1: the time limit is one of the whole comparison."""
    found = reviewed(HARDER, seconds=0.0)
    assert found.verdict == "UNDECIDED"
    assert found.approvals_needed == 1


def test_a1_a_base_that_does_not_compile_is_undecided() -> None:
    """A1: it says so, and what is wrong with the base."""
    found = reviewed(BASE, {"floor.yaml": EQUITY.replace("below:", "bellow:")})
    assert found.verdict == "UNDECIDED"
    assert any("the base does not compile" in line for line in found.why)
    assert any("floor.yaml:9" in line for line in found.why)
    assert found.policy_digest is not None and found.problems == ()


def test_w5_mistakes_name_file_line_commit_and_signer() -> None:
    """W5 of failures: whoever is paged knows where to look and whom to ask."""
    found = reviewed(edited("below:", "bellow:"))
    (first, *_) = found.problems
    assert (first.file, first.line, first.commit, first.principal) == ("floor.yaml", 9, "c" * 40, "dan@desk.example")
    assert (first.is_page, found.policy_digest) == (False, None)
    assert "KS2001" in {each.code for each in found.problems}
    assert all(each.text and each.fix for each in found.problems)


def test_mistakes_in_tests_beside_policies_keep_nothing_from_running() -> None:
    """A set with a scenario that never worked is reviewed as what runs; the scenario is no reason."""
    broken = SCENARIO.replace("fires: stop", "fires: nothing-known").replace("kind: Scenario", "kind: Scenarioo")
    assert reviewed({**HARDER, "s.yaml": broken}, {**BASE, "s.yaml": broken}).verdict == "UNDECIDED"
    unreadable = SCENARIO.replace("every: 1m", "every: never")
    assert reviewed({**HARDER, "s.yaml": unreadable}, {**BASE, "s.yaml": unreadable}).verdict == "TIGHTENING"


def test_a2_an_invariant_of_the_base_that_head_breaks_is_a_reason() -> None:
    """A2: the invariants of the set in force are proved of the candidate, also where the candidate removes them."""
    base = {**BASE, "invariant.yaml": INVARIANT}
    kept = reviewed({**SOFTER, "invariant.yaml": INVARIANT}, base)
    assert any("low-stops of the base is broken" in line and "a floor is a floor" in line for line in kept.why)
    removed = reviewed(SOFTER, base)
    assert any("low-stops of the base is broken" in line for line in removed.why)
    assert "the Invariant low-stops is no longer loaded" in removed.why[0]
    assert removed.verdict == "NEITHER"


def test_a2_scenarios_of_the_base_run_on_the_candidate() -> None:
    """A2: one that fails is a reason; one that is removed or edited needs approvals even of a tightening."""
    base = {**BASE, "scenario.yaml": SCENARIO}
    softer = reviewed({**SOFTER, "scenario.yaml": SCENARIO}, base)
    assert any("the scenario falls of the base fails" in line for line in softer.why)
    assert softer.verdict == "LOOSENING"
    assert reviewed({**HARDER, "scenario.yaml": SCENARIO}, base).verdict == "TIGHTENING"
    for head in (HARDER, {**HARDER, "scenario.yaml": SCENARIO.replace("fires: stop", "text: [x], fires: stop")}):
        assert reviewed(head, base).verdict not in ("TIGHTENING", "EQUIVALENT")
    renamed = edited("name: floor", "name: ground")
    assert any("cannot be run any more" in line for line in reviewed(renamed, base).why)


def test_the_review_is_deterministic() -> None:
    """The same request gives the same bytes."""
    asked = {**SOFTER, "scenario.yaml": SCENARIO}, {**BASE, "scenario.yaml": SCENARIO, "i.yaml": INVARIANT}
    assert msgspec.json.encode(reviewed(*asked)) == msgspec.json.encode(reviewed(*asked))


def test_no_output_has_control_characters() -> None:
    """Names and values of a candidate are shown without effect on a terminal."""
    hostile = edited("reset: manual", 'reset: manual\n      runbook: "a\\e[31m\\u202e"')
    for found in (reviewed(hostile), reviewed({"a\x1b[2J.yaml": "a: ["})):
        text = msgspec.json.encode(found).decode()
        assert "\\u001b" not in text and "\x1b" not in text and "\u202e" not in text


# Arrival

BOOK = snapshot(START, account("1200", [position("BTC/USDT:USDT", "long", "0", contracts="0.01", mark_price="50000")]))


def arriving(head: Files, base: Files | None = None) -> Review:
    """The review with a snapshot of an account of 1,200 USDT that is long."""
    return reviewed(head, base, snapshot=encode_snapshot(BOOK))


def test_a8_what_fires_on_arrival_is_named_with_what_it_would_close() -> None:
    """A8: the floor of 1,500 fires at the first tick, where that of 1,000 does not."""
    found = arriving(HARDER)
    (firing,) = found.arrival
    assert (firing.policy, firing.scope, firing.stage) == ("floor", "account/main", "stop")
    assert (
        firing.text
        == "would close: sell 0.01 BTC/USDT:USDT on main; would lock account/main: reduce_only until it is lifted"
    )
    assert found.verdict == "TIGHTENING" and found.approvals_needed == 0
    assert found.arrival_approvals == ()


@pytest.mark.parametrize("head", [BASE, edited("below: 1000", "below: 1100"), SOFTER], ids=["same", "harder", "softer"])
def test_a8_what_does_not_fire_is_no_arrival(head: Files) -> None:
    """A8: a tightening of which nothing fires waits for nobody."""
    assert arriving(head).arrival == ()


def test_a8_what_the_set_in_force_fires_anyway_is_no_arrival() -> None:
    """A8: nothing that the set in force fires is held by an edit."""
    base = edited("below: 1000", "below: 1300")
    assert arriving(HARDER, base).arrival == ()


def test_a8_what_the_set_in_force_is_about_to_fire_is_no_arrival() -> None:
    """A8: a confirmation that ends at the same tick belongs to the set in force, whatever else was edited."""
    base = edited("below: 1000 USDT,", "below: 1300 USDT, confirm: 1s,")
    head = edited("cooldown: 30m", "cooldown: 20m", base["floor.yaml"])
    assert arriving(head, base).arrival == ()


def test_a8_a_confirmation_does_not_hide_what_fires_on_arrival() -> None:
    """A8: a condition that is true now fires once its `confirm` is over, which is no later moment to be surprised."""
    found = arriving(edited("below: 1000 USDT,", "below: 1500 USDT, confirm: 5m,"))
    assert [each.stage for each in found.arrival] == ["stop"]
    assert arriving(edited("below: 1000 USDT,", "below: 1100 USDT, confirm: 5m,")).arrival == ()


def test_a8_states_of_the_runner_count() -> None:
    """A8: a stage that has fired already and is latched does not fire again on arrival."""
    from tempfile import TemporaryDirectory

    base = edited("below: 1000", "below: 1300")
    with TemporaryDirectory() as folder:
        (Path(folder) / "floor.yaml").write_text(base["floor.yaml"])
        interpreter = Interpreter(compiled(Path(folder)))
    assert len(interpreter.tick(BOOK).decisions) == 1
    states = tuple((each.policy, each.scope, each.blob) for each in interpreter.states())
    found = reviewed(HARDER, base, snapshot=encode_snapshot(BOOK), states=states)
    assert found.arrival == ()
    assert any("stop stays in force" in line for line in found.preview)


def test_a8_the_history_of_the_runner_counts(tmp_path: Path) -> None:
    """A8: a window over the last hour is known from the runner's store; without the store, that is said."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base/floor.yaml").write_text(EQUITY)
    interpreter = Interpreter(compiled(tmp_path / "base"))
    at = str(tmp_path / "ks.sqlite")
    store = open_store(at, read_only=False)
    for minute, equity in enumerate(range(2000, 1100, -100)):
        held = position("BTC/USDT:USDT", "long", str(equity - 2000), mark_price=str(equity), entry_price="2000")
        book = snapshot(after(minutes=minute), account(str(equity), [held], unrealized=Decimal(equity - 2000)))
        interpreter.tick(book)
        states, rows = interpreter.states(), interpreter.rows()
        store.commit_tick(TickRecord(book.as_of, "sha256:0", states, rows, (), (), (), None, (), 0))
    store.close()
    falling = "    fall: {signal: equity.drawdown, window: 1h, at_least: 30%, on_unknown: hold}\n    low:"
    head = {"floor.yaml": EQUITY.replace("    low:", falling).replace("[low,", "[fall, low,")}
    last = encode_snapshot(book)
    assert [each.stage for each in reviewed(head, snapshot=last, store=at).arrival] == ["stop"]
    without = reviewed(head, snapshot=last)
    assert without.arrival == ()
    assert any("no history" in line for line in without.preview)
    gone = child_reviewed(request(head, snapshot=last, store=str(tmp_path / "none.sqlite")))
    assert [each.code for each in gone.problems] == ["KS8322"]


def test_r6_an_undeclared_rename_of_what_is_in_force_is_refused() -> None:
    """R6: refused with its name, approved or not; R10: the preview says what would become of it."""
    from tempfile import TemporaryDirectory

    base = edited("below: 1000", "below: 1300")
    with TemporaryDirectory() as folder:
        (Path(folder) / "floor.yaml").write_text(base["floor.yaml"])
        interpreter = Interpreter(compiled(Path(folder)))
    interpreter.tick(BOOK)
    states = tuple((each.policy, each.scope, each.blob) for each in interpreter.states())
    renamed = edited("name: stop", "name: halt", base["floor.yaml"])
    found = reviewed(renamed, base, snapshot=encode_snapshot(BOOK), states=states)
    assert [each.code for each in found.problems] == ["KS8323"]
    assert "formerly: stop" in found.problems[0].text
    declared = edited("name: stop", "name: halt\n      formerly: stop", base["floor.yaml"])
    assert reviewed(declared, base, snapshot=encode_snapshot(BOOK), states=states).problems == ()


# Approvals

ANN, BOB, DAN = (ssh_signer(f"{name}@desk.example") for name in ("ann", "bob", "dan"))
TRUST = trust_of([ANN, BOB, DAN], approvals=2)


def approval(signer: Signer, head: Files, base: Files | None = None, **more: object) -> bytes:
    """The approval of a change by a real key."""
    before, after = files(BASE if base is None else base), files(head)
    fields: dict[str, object] = {
        "purpose": "change", "source": "desk", "ref": "refs/heads/main", "path": "policies",
        "base": folder_digest(before), "result": folder_digest(after), "shown": "LOOSENING", "key": "-",
        "given": NOW - HOUR, "expires": NOW + DAY, **more,
    }  # fmt: skip
    return signer.approval(Statement(**fields))  # type: ignore[arg-type]  # the test names the fields


def test_a7_a_loosening_has_the_approvals_of_others_than_its_author() -> None:
    """A7: those that came with the source and those that reached the runner count together; the author's does not."""
    asked = request(SOFTER)
    given = replace(asked.candidate, statements=(approval(ANN, SOFTER), approval(DAN, SOFTER)))
    found = reviewed(SOFTER, trust=TRUST, candidate=given, statements=(approval(BOB, SOFTER),))
    assert found.approvals_needed == 2
    assert sorted(each.principal for each in found.approvals) == ["ann@desk.example", "bob@desk.example"]
    (why,) = found.not_counted
    assert "dan@desk.example" in why and "KS8311" in why


def test_the_approvals_of_years_hide_no_new_one() -> None:
    """A folder of approvals grows: those of other changes are counted in a line, and start no program."""
    signed = approval(ANN, SOFTER)
    old = tuple(re.sub(rb"sha256:[0-9a-f]{64}", b"sha256:%064x" % number, signed) for number in range(300))
    found = reviewed(SOFTER, trust=TRUST, statements=(*old, b"words", approval(ANN, SOFTER), approval(BOB, SOFTER)))
    assert len(found.approvals) == 2
    assert "300 statements about other changes (KS8308)" in found.not_counted
    assert any("KS8301" in line for line in found.not_counted)


def test_a8_an_approval_of_the_arrival_counts_apart() -> None:
    """A8: one person who is not the author; the approvals of the change need more."""
    subject = "floor/account/main/stop"
    given = approval(ANN, HARDER, purpose="arrival", shown="TIGHTENING", subject=subject)
    found = reviewed(HARDER, trust=TRUST, snapshot=encode_snapshot(BOOK), statements=(given,))
    assert [each.principal for each in found.arrival_approvals] == ["ann@desk.example"]
    own = approval(DAN, HARDER, purpose="arrival", shown="TIGHTENING", subject=subject)
    assert reviewed(HARDER, trust=TRUST, snapshot=encode_snapshot(BOOK), statements=(own,)).arrival_approvals == ()


def test_a5_a_step_that_is_proved_harmless_needs_no_approval_of_its_own() -> None:
    """A5: the loosening step is approved; the tightening after it is proved from the files of both steps."""
    asked = request(edited("below: 1000 USDT", "below: 600 USDT"))
    last = asked.candidate.steps[0]
    first = FirstParentStep(
        "d" * 40, folder_digest(files(SOFTER)), (replace(last.commits[0], id="d" * 40),), files(SOFTER)
    )
    head = edited("below: 1000 USDT", "below: 600 USDT")
    given = replace(asked.candidate, steps=(first, last))
    statements = (approval(ANN, SOFTER), approval(BOB, SOFTER))
    found = reviewed(head, trust=TRUST, candidate=given, statements=statements)
    assert len(found.approvals) == found.approvals_needed == 2
    unread = replace(given, steps=(first, replace(last, files=None)))
    assert reviewed(head, trust=TRUST, candidate=unread, statements=statements).approvals == ()


def test_p5_what_only_a_start_reads_is_named() -> None:
    """P5: accounts and timers wait for a start, and are named; secrets in them are not."""
    account_text = (
        "apiVersion: killswitch.dev/v1\nkind: Account\nmetadata: {name: main}\n"
        "spec: {adapter: paper, market: swap, currency: USDT, execution: observe}\n"
    )
    base = {**BASE, "account.yaml": account_text}
    head = {**BASE, "account.yaml": account_text.replace("observe", "live")}
    assert reviewed(head, base).needs_start == ("the Account main is changed: execution",)
    assert reviewed(BASE, base).needs_start == ("the Account main is no longer loaded",)
