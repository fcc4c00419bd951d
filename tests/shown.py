"""The pages of verbs as text, as a pipe shows them."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.incident.record.results import Result
from killswitch.model.decision import Decision, Notice
from killswitch.model.snapshot import Snapshot
from killswitch.operations.pages.decision import DecisionHistory, decided, decision_page
from killswitch.operations.pages.history import history_page
from killswitch.operations.pages.plan import plan_page
from killswitch.operations.pages.status import status_page
from killswitch.operations.pages.wording import decision_section
from killswitch.operations.preview import Preview
from killswitch.operations.status import StoreStatus
from killswitch.policy.diagnostics.diagnostic import Diagnostic, diagnostics_page
from killswitch.render.document import section_text, text


def status_text(status: StoreStatus, store_at: str) -> str:
    return text(status_page(status, store_at))


def history_text(found: Sequence[tuple[Decision, Result]], changes: Sequence[Notice] = ()) -> str:
    return text(history_page(found, changes))


def plan_text(shown: Preview) -> str:
    return text(plan_page(shown))


def decision_history_text(history: DecisionHistory) -> str:
    return text(decision_page(history))


def diagnostics_text(found: Sequence[Diagnostic]) -> str:
    return text(diagnostics_page(found))


def decision_lines(decision: Decision) -> list[str]:
    """The lines below the head of a decision, as `run` and `replay` print them."""
    return section_text(decision_section(decision)).splitlines()[1:]


def effects_text(decision: Decision, snapshot: Snapshot | None) -> str:
    return section_text(decided(decision, snapshot))
