"""Checks of `top_up_margin` against the scope of its policy, and the accounts of the set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from killswitch.graph.actions.kind import Surroundings, of_node
from killswitch.graph.actions.top_up_margin import TopUpMargin
from killswitch.graph.nodes import Stage
from killswitch.graph.resolution.references import matches, of_kind
from killswitch.policy.loader import Document
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.policy import AnyPolicy
from killswitch.policy.yaml.source_map import Path


def check_top_ups(
    policy: AnyPolicy, stages: Sequence[Stage], documents: Sequence[Document], around: Surroundings
) -> None:
    """Report top-ups of stages (in the order written) of what is not one account, or in another currency."""
    accounts = {each.metadata.name: each for each, _ in of_kind(documents, AccountDocument)}
    for number, stage in enumerate(stages):
        path: Path = ("spec", "stages", number)
        if around.found.gaps.has_flaw(path) or around.found.gaps.has_flaw(("spec", "scope")):
            continue
        for action in of_node(stage.actions, TopUpMargin):
            place = next(place for place, each in enumerate(stage.actions) if each is action)
            where: Path = (*path, "actions", place, "top_up_margin")
            if _has_one_account(policy, action, accounts, where, around):
                _has_one_currency(policy, action, accounts, where, around)


def _has_one_account(
    policy: AnyPolicy, action: TopUpMargin, accounts: Mapping[str, AccountDocument], path: Path, around: Surroundings
) -> bool:
    """Whether each scope is one account, and none of them the source; reports it if not."""
    scope, source = policy.scope, action.source
    message, where, fix = None, path, ""
    if scope.each != "account":
        message = f"margin is moved to one account, and the scope is `each: {scope.each}`"
        fix = "write `each: account`"
    elif source in (scope.match.account or ()) or (source in accounts and matches(scope.match, accounts[source])):
        message, where = f"`{source}` is in the scope, and would give margin to itself", (*path, "from")
        fix = "narrow the scope with `match: {account: [...]}`, or name another source"
    if message is not None:
        around.found.error("KS3057", where, message, fix, key=where == path)
    return message is None


def _has_one_currency(
    policy: AnyPolicy, action: TopUpMargin, accounts: Mapping[str, AccountDocument], path: Path, around: Surroundings
) -> None:
    """Report an account of the scope, or a source, in another currency than that of the bound."""
    reached = [name for name, each in sorted(accounts.items()) if matches(policy.scope.match, each)]
    for name in (action.source, *reached):
        held = accounts[name].spec.currency if name in accounts else action.currency
        if held != action.currency:
            message = f"`{name}` is in {held}, and the bound in {action.currency}: nothing is converted on the way"
            fix = "name accounts and amounts of one currency"
            around.found.error("KS3058", (*path, "at_most"), message, fix)
            return
