"""The page of an operator command: its decisions, its notices, and the lock of a reset."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from killswitch.incident.record.results import fold_result
from killswitch.model.decision import Decision, Notice
from killswitch.operations.pages.outcome import CommandOutcome, outcome_page
from killswitch.operations.status import LockView
from killswitch.render.document import text
from killswitch.render.formats import instant
from tests.worlds import START

RESET = Decision(
    id="r1", as_of=START, policy="p", policy_set="sha256:test", scope="account/main", mode="enforce", stage=None,
    level=0, previous_level=2, kind="reset", author="ada", reason="seen",
)  # fmt: skip
FIRED = replace(RESET, id="f1", stage="trim", level=1, previous_level=0, kind=None, author=None, reason=None)
LOCK = LockView(
    "account-main.json", "account/main", True, "reduce_only", "p: loss", None, None, None, ordered=True, stale=False,
    has_own=True,
)  # fmt: skip


def outcome(**changes: object) -> CommandOutcome:
    results = ((RESET, fold_result(RESET, (), None)),)
    return replace(CommandOutcome(results, (), "nobody continues"), **changes)


def test_a_reset_shows_what_fired_again_and_why_its_scope_is_locked() -> None:
    """Sections with a blank line between them; the lock comes last."""
    assert text(outcome_page(outcome(fired_again=FIRED, lock=LOCK))) == (
        "reset from level 2 by ada: p on account/main  [r1]\n  back to normal; the loss is accepted\n\n"
        "level 1 trim: p on account/main  [f1]\n  it fired again: its triggers are still true\n\n"
        "account/main is still locked: p: loss"
    )


def test_a_reset_says_from_what_the_next_stage_measures() -> None:
    """The equity of its scope when it was processed, with its time."""
    assert text(outcome_page(outcome(bases={"r1": "93,500.00 USDT"}))) == (
        "reset from level 2 by ada: p on account/main  [r1]\n  back to normal; the loss is accepted\n"
        f"  the next stage measures from 93,500.00 USDT, the equity at {instant(START)}: start, peak and windows"
    )


@pytest.mark.parametrize(
    ("lock", "closing", "line"),
    [
        (replace(LOCK, ordered=False), (), "account/main is not locked"),
        (replace(LOCK, has_own=False, wider=("venue/v",)), (),
         "account/main has no lock of its own, but is locked by venue/v: p: loss"),
        (LOCK, ("a", "b"), "account/main stays locked until the close of a, b ends"),
    ],
)  # fmt: skip
def test_the_lock_of_a_reset_is_explained_in_one_line(lock: LockView, closing: tuple[str, ...], line: str) -> None:
    """Whether it is gone, belongs to a wider scope, or is kept by a close."""
    assert text(outcome_page(outcome(lock=lock, closing=closing))).endswith(f"\n\n{line}")


def test_every_change_since_a_plan_has_a_line_of_its_own() -> None:
    """The notice of a refused `apply` lists them; the command has failed."""
    notice = Notice(START, "operator", "portfolio", "nothing_selected", "warning", "the plan is refused; A; B")
    found = outcome(results=(), notices=(notice,), splits_notices=True)
    assert text(outcome_page(found)) == "the plan is refused\n  A\n  B"
    assert text(outcome_page(replace(found, splits_notices=False))) == notice.text
    assert found.is_failed
