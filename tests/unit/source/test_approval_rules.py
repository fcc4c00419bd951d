"""Which approvals count for a change: the rules A1 to A9 by name, over statements signed by real keys."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from killswitch.model.applied_set import ChangeClass, identities
from killswitch.model.instant import DAY, SECOND
from killswitch.source.approval_rules import (
    CountedApprovals,
    Given,
    count_approvals,
    count_arrival_approvals,
)
from killswitch.source.candidate import Candidate, FirstParentStep, VerifiedCommit
from killswitch.source.statement_signatures import VerifiedStatement, verify_all
from killswitch.source.statements import Statement
from killswitch.source.trust import Trust, TrustedKey
from tests.unit.source.approval_keys import NOW, Signer, digest, ssh_signer, statement, trust_of

ANN, BOB, CAT, DAN = (ssh_signer(f"{name}@desk.example") for name in ("ann", "bob", "cat", "dan"))
TRUST = trust_of([ANN, BOB, CAT, DAN], approvals=2)
BASE = digest("a")
NEEDING: tuple[ChangeClass, ...] = ("LOOSENING", "NEITHER", "UNDECIDED")


def commit(number: int, signer: Signer, *claimed: str) -> VerifiedCommit:
    """A commit of one author."""
    return VerifiedCommit(f"{number:040x}", (f"{number - 1:040x}",), signer.principal, claimed, "Edit a threshold")


def step(number: int, result: str, *commits: VerifiedCommit) -> FirstParentStep:
    """A first-parent step."""
    return FirstParentStep(commits[-1].id, result, commits)


def candidate(*steps: FirstParentStep, **more: object) -> Candidate:
    """What a repository proposes; without steps, one commit of Dan that turns digest `a` into `b`."""
    found = steps or (step(1, digest("b"), commit(1, DAN)),)
    fields: dict[str, object] = {
        "source": "desk", "kind": "git", "files": (), "folder_digest": found[-1].folder_digest, "steps": found,
        "ref": "refs/heads/main", "path": "policies", "commit": found[-1].commit, **more,
    }  # fmt: skip
    return Candidate(**fields)  # type: ignore[arg-type]  # the tests name the fields


def signed(*approvals: tuple[Signer, Statement], trust: Trust = TRUST, now: int = NOW) -> tuple[VerifiedStatement, ...]:
    """The statements that are valid, signed by real keys."""
    return verify_all([signer.approval(each) for signer, each in approvals], trust, now)[0]


def counted(
    *approvals: tuple[Signer, Statement],
    of: Candidate | None = None,
    verdict: ChangeClass = "LOOSENING",
    trust: Trust | None = TRUST,
    spent: Sequence[str] = (),
    classes: Sequence[ChangeClass] = (),
    now: int = NOW,
) -> CountedApprovals:
    """The approvals of a candidate."""
    statements = signed(*approvals, trust=trust or TRUST, now=now)
    given_for = Given(statements, frozenset(spent), trust)
    return count_approvals(
        of or candidate(), BASE, verdict, given_for, lambda i: classes[i] if classes else "UNDECIDED"
    )


def who(found: CountedApprovals) -> list[str]:
    """Who has approved, by first name."""
    return sorted(each.principal.split("@")[0] for each in found.approvals)


def codes(found: CountedApprovals) -> list[str]:
    """Why others do not count."""
    return sorted(each.code for each in found.not_counted)


@pytest.mark.parametrize("verdict", NEEDING)
def test_a1_whatever_is_not_proved_harmless_needs_what_a_loosening_needs(verdict: ChangeClass) -> None:
    """A1: undecided and neither need N approvals, as a loosening does."""
    assert counted(verdict=verdict).needed == 2
    assert not counted(verdict=verdict).is_approved
    assert not counted((ANN, statement(shown=verdict)), verdict=verdict).is_approved
    assert counted((ANN, statement(shown=verdict)), (BOB, statement(shown=verdict)), verdict=verdict).is_approved


@pytest.mark.parametrize("verdict", ["TIGHTENING", "EQUIVALENT"])
@pytest.mark.parametrize("trust", [None, TRUST], ids=["no trust set", "trust set"])
def test_what_reduces_risk_asks_nobody(verdict: ChangeClass, trust: Trust | None) -> None:
    """A tightening needs no approval, also where none could be given."""
    assert counted(verdict=verdict, trust=trust) == CountedApprovals(0)
    assert counted(verdict=verdict, trust=trust).is_approved


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"source": "other"}, "KS8308"), ({"ref": "refs/heads/next"}, "KS8308"), ({"path": "other"}, "KS8308"),
        ({"ref": None}, "KS8308"), ({"base": digest("c")}, "KS8308"), ({"result": digest("c")}, "KS8308"),
        ({"base": None}, "KS8308"), ({"result": None}, "KS8308"), ({"purpose": "arrival"}, "KS8309"),
        ({"purpose": "trust"}, "KS8309"), ({"purpose": "reset"}, "KS8309"), ({"purpose": "anchor"}, "KS8309"),
        ({"shown": "TIGHTENING"}, "KS8313"), ({"shown": "EQUIVALENT"}, "KS8313"), ({"shown": None}, "KS8313"),
    ],
    ids=str,
)  # fmt: skip
def test_a3_an_approval_is_of_exactly_one_change(changed: dict[str, object], code: str) -> None:
    """A3: source, ref, path, both digests, purpose, and the class as shown; another one of any of them is void."""
    found = counted((ANN, statement()), (BOB, statement(**changed)))  # type: ignore[arg-type]  # one field of it
    assert (who(found), codes(found), found.is_approved) == (["ann"], [code], False)


def test_a4_a_moved_base_a_later_commit_and_another_repository_void_an_approval() -> None:
    """A4: what was approved is the way from one folder to another; neither end may move."""
    both = (ANN, statement()), (BOB, statement())
    assert counted(*both).is_approved
    later = candidate(step(1, digest("b"), commit(1, DAN)), step(2, digest("c"), commit(2, DAN)))
    amended = candidate(step(1, digest("d"), commit(3, DAN)))
    assert not counted(*both, of=later).is_approved
    assert not counted(*both, of=amended).is_approved
    moved = count_approvals(candidate(), digest("e"), "LOOSENING", Given(signed(*both), frozenset(), TRUST), unproved)
    assert (who(moved), set(codes(moved))) == ([], {"KS8308"})
    assert not counted(*both, of=candidate(source="fork")).is_approved


def unproved(_: int) -> ChangeClass:
    """Nothing is proved of a step."""
    return "UNDECIDED"


def test_a4_a_squash_or_a_merge_with_the_same_base_and_result_keeps_an_approval() -> None:
    """A4: other commits, the same folders."""
    squashed = candidate(step(9, digest("b"), commit(9, CAT)))
    merged = candidate(step(8, digest("b"), commit(6, DAN), commit(7, DAN), commit(8, CAT)))
    for each in (squashed, merged):
        assert who(counted((ANN, statement()), (BOB, statement()), of=each)) == ["ann", "bob"]


TWO_STEPS = candidate(step(1, digest("b"), commit(1, DAN)), step(2, digest("c"), commit(2, CAT)))
FIRST = statement()
SECOND_STEP = statement(base=digest("b"), result=digest("c"))
WHOLE = statement(result=digest("c"))


def test_a5_the_whole_or_each_loosening_step_is_approved() -> None:
    """A5: approvals of each step count as those of the whole do; a step that is proved harmless needs none."""
    assert counted((ANN, WHOLE), (BOB, WHOLE), of=TWO_STEPS).is_approved
    each = counted((ANN, FIRST), (BOB, FIRST), (ANN, SECOND_STEP), (BOB, SECOND_STEP), of=TWO_STEPS)
    assert (each.is_approved, len(each.approvals)) == (True, 4)
    harmless: tuple[ChangeClass, ...] = ("LOOSENING", "TIGHTENING")
    assert counted((ANN, FIRST), (BOB, FIRST), of=TWO_STEPS, classes=harmless).is_approved


@pytest.mark.parametrize(
    "approvals",
    [
        [(ANN, FIRST), (BOB, FIRST)], [(ANN, SECOND_STEP), (BOB, SECOND_STEP)],
        [(ANN, FIRST), (BOB, FIRST), (ANN, SECOND_STEP)], [(ANN, WHOLE), (BOB, FIRST)],
        [(ANN, FIRST), (BOB, SECOND_STEP)],
    ],
    ids=["the first only", "the last only", "one of the last", "one of each kind", "one of each step"],
)  # fmt: skip
def test_a5_nothing_that_is_not_approved_hides_below_something_approved(
    approvals: list[tuple[Signer, Statement]],
) -> None:
    """A5: one step without its approvals keeps the whole out."""
    assert not counted(*approvals, of=TWO_STEPS).is_approved


def test_a5_an_author_of_one_step_may_approve_another_but_not_the_whole() -> None:
    """A5, A7: steps are changes of their own; of the whole, Cat has written a part."""
    found = counted((ANN, FIRST), (CAT, FIRST), (ANN, SECOND_STEP), (BOB, SECOND_STEP), of=TWO_STEPS)
    assert (found.is_approved, who(found)) == (True, ["ann", "ann", "bob", "cat"])
    whole = counted((ANN, WHOLE), (CAT, WHOLE), of=TWO_STEPS)
    assert (whole.is_approved, codes(whole)) == (False, ["KS8311"])


def test_a6_a_spent_approval_does_not_count_again() -> None:
    """A6: a change that was undone and proposed again has the same digests, and needs approvals of its own."""
    first = counted((ANN, statement()), (BOB, statement()))
    spent = [each.id for each in first.approvals]
    again = counted((ANN, statement()), (BOB, statement()), spent=spent)
    assert (again.is_approved, codes(again)) == (False, ["KS8310", "KS8310"])
    renewed = (ANN, statement(given=NOW - SECOND)), (BOB, statement(given=NOW - SECOND))
    assert counted(*renewed, spent=spent).is_approved


def test_a6_an_expired_approval_does_not_count() -> None:
    """A6: by the runner's clock, at the moment the change would be taken."""
    both = (ANN, statement()), (BOB, statement(expires=NOW + DAY))
    assert counted(*both).is_approved
    assert who(counted(*both, now=NOW + DAY)) == ["ann"]


def test_a7_two_keys_of_one_person_are_one_approval() -> None:
    """A7: different keys *and* principals, in whatever spelling of a name."""
    second = ssh_signer("ann@desk.example", 2)
    trust = trust_of([ANN, second, BOB], approvals=2)
    found = counted((ANN, statement()), (second, statement()), trust=trust)
    assert (who(found), codes(found), found.is_approved) == (["ann"], ["KS8312"], False)
    spelled = Signer("Ann@Desk.example", second.kind, second.private, second.public, second.fingerprint)
    assert not counted((ANN, statement()), (spelled, statement()), trust=trust_of([ANN, spelled, BOB], 2)).is_approved


def test_a7_one_person_who_approves_twice_is_one_approval() -> None:
    """A7: two statements of one key count once."""
    found = counted((ANN, statement()), (ANN, statement(given=NOW - SECOND)))
    assert (who(found), codes(found)) == (["ann"], ["KS8312"])


@pytest.mark.parametrize(
    "commits",
    [
        [commit(1, BOB)], [commit(1, DAN), commit(2, BOB), commit(3, DAN)],
        [commit(1, DAN, "Bob Example <bob@desk.example>")], [commit(1, DAN, "Robert <BOB@DESK.EXAMPLE>")],
        [commit(1, DAN, "bob@desk.example")], [commit(1, DAN, "Somebody <bob@home.example>")],
        [commit(1, DAN, "Somebody <bob+work@home.example>")], [commit(1, DAN, "bob <x@y.example>")],
    ],
    ids=["signed", "signed in between", "wrote", "other case", "address only", "other host", "tag", "name"],
)  # fmt: skip
def test_a7_nobody_with_a_part_in_a_change_approves_it(commits: list[VerifiedCommit]) -> None:
    """A7: never who signed, wrote, co-wrote (as claimed) or merged any commit of the change."""
    found = counted((ANN, statement()), (BOB, statement()), of=candidate(step(3, digest("b"), *commits)))
    assert (who(found), codes(found), found.is_approved) == (["ann"], ["KS8311"], False)


def test_a7_who_merges_does_not_approve() -> None:
    """A7: the signer of a merge commit has a part in the change."""
    merge = replace(commit(2, BOB), parents=(f"{0:040x}", f"{1:040x}"))
    found = counted((ANN, statement()), (BOB, statement()), of=candidate(step(2, digest("b"), commit(1, DAN), merge)))
    assert who(found) == ["ann"]


def test_a7_who_signed_the_manifest_of_a_folder_does_not_approve_it() -> None:
    """A7, C4: a folder has no commits; its author is who signed what it holds."""
    of = candidate(
        kind="directory", steps=(), ref=None, path="/srv/policies", folder_digest=digest("b"), signer=BOB.principal
    )
    here = statement(ref=None, path=None)
    found = counted((ANN, here), (BOB, here), (CAT, here), of=of)
    assert (who(found), codes(found)) == (["ann", "cat"], ["KS8311"])


def test_a7_none_configured_is_not_approved() -> None:
    """A7: no trust set, no approver, fewer approvers than N, or N of nought: nothing is approved by that."""
    both = (ANN, statement()), (BOB, statement())
    nobody = Trust(version=1, approvals=2, keys=tuple(each.trusted(approves=False) for each in (ANN, BOB)))
    for trust in (None, nobody, trust_of([ANN], approvals=2)):
        found = counted(*both, trust=trust)
        assert (found.is_approved, who(found)) == (False, [])
        assert "KS8314" in codes(found)
    nought = counted(trust=trust_of([ANN, BOB], approvals=0))
    assert (nought.needed, nought.is_approved) == (1, False)


FIRINGS = [("drawdown", "portfolio", "trim"), ("drawdown", "account/main", "stop")]
NAMED = "drawdown/account/main/stop, drawdown/portfolio/trim"


def arriving(
    *approvals: tuple[Signer, Statement], of: Candidate | None = None, trust: Trust | None = TRUST,
    firings: Sequence[tuple[str, str, str]] = FIRINGS,
) -> CountedApprovals:  # fmt: skip
    """The approvals of what fires on arrival of a tightening."""
    given_for = Given(signed(*approvals, trust=trust or TRUST), frozenset(), trust)
    return count_arrival_approvals(of or candidate(), BASE, "TIGHTENING", given_for, firings)


def arrival(subject: str | None = NAMED, **more: object) -> Statement:
    """An approval of what fires on arrival."""
    return statement("arrival", **{"shown": "TIGHTENING", "subject": subject, **more})


def test_a8_one_person_who_is_no_author_approves_what_fires_on_arrival() -> None:
    """A8: one approval, whatever N is; none of the author."""
    assert (arriving().needed, arriving().is_approved) == (1, False)
    assert who(arriving((ANN, arrival()))) == ["ann"]
    assert codes(arriving((DAN, arrival()))) == ["KS8311"]
    assert arriving(firings=()) == CountedApprovals(0)


def test_a8_the_approval_names_what_fires() -> None:
    """A8: a yes to one stage is none to another; a yes to more than fires is one; that to the change is none."""
    assert arriving((ANN, arrival(f"{NAMED}, x/portfolio/y"))).is_approved
    assert codes(arriving((ANN, arrival("drawdown/portfolio/trim")))) == ["KS8313"]
    assert codes(arriving((ANN, arrival(None)))) == ["KS8313"]
    assert codes(arriving((ANN, statement(shown="TIGHTENING")))) == ["KS8309"]
    assert not arriving((ANN, arrival()), trust=None).is_approved


STATEMENTS = signed(
    *((each, statement()) for each in (ANN, BOB, CAT, DAN)),
    *((each, statement(base=digest("f"))) for each in (ANN, BOB)),
    *((each, statement("trust")) for each in (CAT, DAN)),
    (ssh_signer("ann@desk.example", 2), statement()),
    trust=trust_of([ANN, BOB, CAT, DAN, ssh_signer("ann@desk.example", 2)]),
)  # fmt: skip


@given(
    st.sets(st.sampled_from(range(len(STATEMENTS)))), st.integers(1, 4),
    st.lists(st.sampled_from([ANN, BOB, CAT, DAN]), min_size=1, max_size=3),
    st.sets(st.sampled_from([each.id for each in STATEMENTS])),
)  # fmt: skip
def test_no_subset_below_n_counts_and_no_author_does(
    chosen: set[int], needed: int, writers: list[Signer], spent: set[str]
) -> None:
    """Approved is exactly: N people with an unspent statement of this change, without its authors (A6, A7)."""
    keys: tuple[TrustedKey, ...] = tuple(each.trusted() for each in (ANN, BOB, CAT, DAN))
    trust = Trust(version=1, approvals=needed, keys=keys)
    given_for = Given(tuple(STATEMENTS[i] for i in sorted(chosen)), frozenset(spent), trust)
    of = candidate(step(9, digest("b"), *(commit(i, each) for i, each in enumerate(writers, 1))))
    found = count_approvals(of, BASE, "LOOSENING", given_for, unproved)
    people = {
        STATEMENTS[i].principal
        for i in chosen
        if STATEMENTS[i].statement.base == BASE
        and STATEMENTS[i].statement.purpose == "change"
        and STATEMENTS[i].id not in spent
    } - {each.principal for each in writers}
    assert found.is_approved == (len(people) >= needed)
    assert {each.principal for each in found.approvals} == people


@given(st.text(max_size=30))
def test_any_text_can_be_a_name(text: str) -> None:
    """Whatever a commit claims has identities, none of which is empty: an empty one would be everybody's."""
    assert "" not in identities(text)
