"""The registry of document kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from killswitch.policy.schema.account import AccountDocument, DeadManDocument, dead_man
from killswitch.policy.schema.cross_key_checks import Breach, policy, ranking
from killswitch.policy.schema.part import Part
from killswitch.policy.schema.policy import CorrelationGroupDocument, PolicyDocument, RankingDocument
from killswitch.policy.schema.route import RouteDocument, route
from killswitch.policy.schema.runbook import RunbookDocument
from killswitch.policy.schema.runbook import check as runbook
from killswitch.policy.schema.unwinding import UnwindingDocument
from killswitch.policy.schema.unwinding_checks import unwinding

KINDS: Mapping[str, type[Part]] = {
    "Policy": PolicyDocument,
    "Account": AccountDocument,
    "Ranking": RankingDocument,
    "CorrelationGroup": CorrelationGroupDocument,
    "Runbook": RunbookDocument,
    "NotificationRoute": RouteDocument,
    "Unwinding": UnwindingDocument,
    "DeadMansSwitch": DeadManDocument,
}

AnyDocument = (
    PolicyDocument
    | AccountDocument
    | RankingDocument
    | CorrelationGroupDocument
    | RunbookDocument
    | RouteDocument
    | UnwindingDocument
    | DeadManDocument
)
"""One of the above."""

CHECKS: Mapping[str, Callable[[object], Iterator[Breach]]] = {
    "Policy": policy,
    "Ranking": ranking,
    "Runbook": runbook,
    "NotificationRoute": route,
    "Unwinding": unwinding,
    "DeadMansSwitch": dead_man,
}
"""What must hold between the keys of a kind, where anything must."""

BUILT_IN: Mapping[str, frozenset[str]] = {
    "Ranking": frozenset({"default", "killswitch-v6", "component-risk", "genesis"})
}
"""Names that are always there, so that no document may take them."""
