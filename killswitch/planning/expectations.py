"""What the policies expect to touch, compared with what there is.

A comparison only: nothing that fires is declined or cut because of it. A count that cannot be known, because an account
could not be read, is unknown and has its reason; it is neither kept nor exceeded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from msgspec import Struct

from killswitch.graph.nodes import Graph, PolicySet, ScopeRule
from killswitch.model.snapshot import AccountSnapshot, Position
from killswitch.planning.scopes.compiled_policy import Identity, identity, scopes_of
from killswitch.policy.schema.expectation import AtMost

Subject = Literal["accounts", "positions"]

MOST_NAMED = 5
"""Names in a message; the number of the others follows."""


class ComparedExpectation(Struct, frozen=True):
    """An expectation of a policy and what was found: `found` of `total`, the first names, or why it is unknown."""

    policy: str
    subject: Subject
    expected: str
    found: int
    total: int
    is_exceeded: bool
    names: tuple[str, ...] = ()
    unknown: str | None = None

    @property
    def text(self) -> str:
        """The comparison for people."""
        listed = ", ".join(self.names[:MOST_NAMED])
        more = f" and {len(self.names) - MOST_NAMED} more" if len(self.names) > MOST_NAMED else ""
        noun = self.subject if self.found != 1 else self.subject.removesuffix("s")
        head = f"`{self.policy}` expects {self.expected} {self.subject}"
        if self.unknown is not None:
            return f"{head}; how many it has is unknown: {self.unknown}"
        return f"{head}, and has {self.found} {noun} of {self.total}: {listed}{more}"


def compared(policies: PolicySet, accounts: Sequence[AccountSnapshot]) -> tuple[ComparedExpectation, ...]:
    """Every expectation of the policies, compared with the accounts of a snapshot."""
    return tuple(each for graph in policies.graphs for each in _of_graph(graph, accounts))


def exceeded(policies: PolicySet, accounts: Sequence[AccountSnapshot]) -> tuple[ComparedExpectation, ...]:
    """The expectations that are exceeded."""
    return tuple(each for each in compared(policies, accounts) if each.is_exceeded)


def exceeded_accounts(policies: PolicySet, identities: Sequence[Identity]) -> tuple[ComparedExpectation, ...]:
    """The expectations of accounts that are exceeded, as the configuration alone shows."""
    found = (_accounts(graph, identities, ()) for graph in policies.graphs)
    return tuple(each for each in found if each is not None and each.is_exceeded)


def needs_positions(policies: PolicySet) -> bool:
    """Whether a policy states an expectation of positions, or of accounts by what they hold."""
    return any(
        graph.expect is not None and (graph.expect.positions is not None or graph.scope.each == "symbol")
        for graph in policies.graphs
    )


def _of_graph(graph: Graph, accounts: Sequence[AccountSnapshot]) -> Iterator[ComparedExpectation]:
    if graph.expect is None:
        return
    held = sorted({row.symbol for account in accounts for row in account.positions or () if row.contracts})
    of_accounts = _accounts(graph, [identity(account) for account in accounts], held)
    if of_accounts is not None:
        yield of_accounts
    if graph.expect.positions is not None:
        yield _positions(graph, graph.expect.positions, accounts, held)


def _accounts(graph: Graph, identities: Sequence[Identity], symbols: Sequence[str]) -> ComparedExpectation | None:
    bound = None if graph.expect is None else graph.expect.accounts
    if bound is None:
        return None
    scopes = scopes_of(graph.scope, identities, symbols).values()
    names = tuple(dict.fromkeys(name for members in scopes for name in members))
    total = len(identities)
    is_exceeded = not bound.allows(len(names), total)
    return ComparedExpectation(graph.policy, "accounts", bound.written, len(names), total, is_exceeded, names)


def _positions(
    graph: Graph, bound: AtMost, accounts: Sequence[AccountSnapshot], symbols: Sequence[str]
) -> ComparedExpectation:
    scopes = scopes_of(graph.scope, [identity(account) for account in accounts], symbols)
    members = {name for names in scopes.values() for name in names}
    names: list[str] = []
    total = 0
    for account in accounts:
        open_rows = [row for row in account.positions or () if row.contracts]
        total += len(open_rows)
        if account.account in members:
            names += [
                f"{row.symbol} on {account.account}" for row in open_rows if _may_touch(graph.scope, account, row)
            ]
    unread = [it for it in accounts if it.positions is None or it.quality != "ok"]
    relevant = [it for it in unread if bound.count is None or it.account in members]
    is_certain = not relevant or (bound.count is not None and not bound.allows(len(names), total))
    unknown = None if is_certain else "; ".join(
        f"account {it.account} is {it.quality}: {it.reason or 'its positions are not known'}" for it in relevant
    )  # fmt: skip
    is_exceeded = unknown is None and not bound.allows(len(names), total)
    return ComparedExpectation(
        graph.policy, "positions", bound.written, len(names), total, is_exceeded, tuple(names), unknown
    )


def _may_touch(rule: ScopeRule, account: AccountSnapshot, row: Position) -> bool:
    """Whether a position of a member may be in a scope of the rule."""
    if rule.each == "symbol":
        return rule.symbols is None or row.symbol in rule.symbols
    if rule.each != "strategy":
        return True
    for each in rule.strategies:
        if each.covers(*identity(account)) and (
            each.whole or each.order_prefixes or row.symbol in each.symbols or row.strategy in each.named
        ):
            return True
    return False
