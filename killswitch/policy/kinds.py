"""The registry of document kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.catastrophe_stop import CatastropheStopDocument
from killswitch.policy.schema.dead_man import DeadManDocument
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.drill import DrillDocument
from killswitch.policy.schema.limits import LimitsDocument
from killswitch.policy.schema.notification.route import RouteDocument
from killswitch.policy.schema.notification.tree import NotificationTreeDocument, SilenceDocument
from killswitch.policy.schema.policy import PolicyDocument
from killswitch.policy.schema.ranking import CorrelationGroupDocument, RankingDocument
from killswitch.policy.schema.recovery import RecoveryPlanDocument
from killswitch.policy.schema.runbook import RunbookDocument
from killswitch.policy.schema.scenario import InvariantDocument, ScenarioDocument
from killswitch.policy.schema.session import SessionDocument
from killswitch.policy.schema.strategy import HedgeGroupDocument, StrategyDocument
from killswitch.policy.schema.unwinding import UnwindingDocument


def document_kind(document: type[VersionedPart]) -> str:
    """The value of a document's `kind`. ValueError unless it is a single literal."""
    words = get_args(document.model_fields["kind"].annotation)
    if len(words) != 1:
        raise ValueError(f'{document.__name__} needs `kind: Literal["…"]`, with a single value')
    return str(words[0])


KINDS: Mapping[str, type[VersionedPart]] = {
    document_kind(document): document
    for document in (
        PolicyDocument,
        AccountDocument,
        RankingDocument,
        CorrelationGroupDocument,
        RunbookDocument,
        RouteDocument,
        NotificationTreeDocument,
        SilenceDocument,
        UnwindingDocument,
        DeadManDocument,
        CatastropheStopDocument,
        StrategyDocument,
        HedgeGroupDocument,
        SessionDocument,
        LimitsDocument,
        RecoveryPlanDocument,
        ScenarioDocument,
        InvariantDocument,
        DrillDocument,
    )
}

TESTS = frozenset({document_kind(ScenarioDocument), document_kind(InvariantDocument), document_kind(DrillDocument)})
"""The kinds that test or rehearse the others: no part of what is deployed, and a mistake in one keeps no run from
starting."""

OF_THE_RUNNER: Mapping[str, str] = {
    "PolicySource": "a PolicySource is the runner's own configuration, and never part of what a source proposes"
}
"""Kinds that no policy folder may hold, and why: a set must not decide where the next one comes from."""
