"""The registry of kinds: the one place where a new kind of document is added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from killswitch.policy.account_document import AccountDocument
from killswitch.policy.checks import Breach, policy, ranking
from killswitch.policy.deadman_document import DeadManDocument, dead_man
from killswitch.policy.documents import (
    CorrelationGroupDocument,
    PolicyDocument,
    RankingDocument,
)
from killswitch.policy.route_document import RouteDocument, route
from killswitch.policy.runbook_document import RunbookDocument
from killswitch.policy.runbook_document import check as runbook
from killswitch.policy.shape import Part
from killswitch.policy.unwinding_checks import unwinding
from killswitch.policy.unwinding_document import UnwindingDocument

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
