"""What `run --live` would say of accounts that were asked, for a check that must not say otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from killswitch.graph.nodes import PolicySet
from killswitch.policy.account_document import AccountDocument
from killswitch.runner.account_findings import Finding
from killswitch.runner.credentials import CredentialError, resolve
from killswitch.runner.deadman_rules import bared, does_not_run, would_bare
from killswitch.runner.inspecting import Looked
from killswitch.runner.twins import armed_twins, twin_words


def refused_twins(looked: Sequence[Looked], documents: Sequence[AccountDocument]) -> Mapping[str, tuple[Finding, ...]]:
    """Account → that `run --live` would not start, because another document arms the same account of a venue."""
    readable = [each for each in documents if _has_secrets(each)]
    asked = {each.name for each in looked}
    told: dict[str, tuple[Finding, ...]] = {}
    for pair in armed_twins(readable):
        finding = Finding("failed", "account", f"`run --live` would not start: {twin_words(*pair)}")
        told |= {name: (*told.get(name, ()), finding) for name in pair if name in asked}
    return told


def kept_off(one: Looked, policies: PolicySet) -> Iterator[Finding]:
    """That a dead man's switch of the account would not be kept, because protective orders rest there now."""
    rule = next((each for each in policies.timers if one.name in each.accounts), None)
    venue, seen = one.traits.dead_man, one.snapshot
    if rule is None or venue is None or seen is None or rule.accept_unprotected:
        return
    if one.document.spec.execution == "live" and (bare := bared(seen, venue)):
        yield Finding("warning", "dead man", does_not_run(one.name, would_bare(bare, venue)))


def _has_secrets(document: AccountDocument) -> bool:
    """Whether its credentials are there; where they are not, that is told by itself."""
    try:
        resolve(document.spec.credentials, account=document.metadata.name)
    except CredentialError:
        return False
    return True
