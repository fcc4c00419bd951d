"""What the documents of a policy set declare that arguments of signals may name: correlation groups and sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from killswitch.graph.expressions.arguments import Declarations
from killswitch.graph.freezing import freeze, frozen_from
from killswitch.graph.nodes import CorrelationGroupRule
from killswitch.graph.problems import FaultyDocuments
from killswitch.graph.resolution.references import Documents, of_kind
from killswitch.policy.schema.session import SessionDocument, SessionSpec
from killswitch.signals.arguments import SymbolGroup
from killswitch.signals.sessions import TradingSession

frozen_from(SessionSpec)(TradingSession)


def declarations(documents: Documents, groups: Iterable[CorrelationGroupRule], others: FaultyDocuments) -> Declarations:
    """The declarations of sound documents. `groups`: the correlation groups; `others`: the faulty documents."""
    by_name = {each.name: SymbolGroup(each.name, each.symbols) for each in groups}
    return Declarations({"CorrelationGroup": by_name, "Session": sessions(documents)}, others)


def sessions(documents: Documents) -> Mapping[str, TradingSession]:
    """The sessions by name, without those of faulty documents."""
    found = of_kind(documents, SessionDocument)
    return {
        document.metadata.name: freeze(document.spec, TradingSession, name=document.metadata.name)
        for document, findings in found
        if not findings.gaps.has_flaw(())
    }
