"""Dead man's switches: timers at venues, silences that a watcher listens for, and the accounts of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from killswitch.graph.freezing import freeze
from killswitch.graph.nodes import HeartbeatWay, SilenceRule, TimerRule
from killswitch.graph.problems import FaultyDocuments, Findings
from killswitch.graph.resolution.references import (
    Documents,
    covered_accounts,
    diagnostics_of,
    named_accounts_exist,
    of_kind,
)
from killswitch.model.instant import SECOND
from killswitch.policy.diagnostics.diagnostic import Diagnostic
from killswitch.policy.loader import Document
from killswitch.policy.schema.account import AccountDocument
from killswitch.policy.schema.dead_man import DeadManDocument, DeadManSpec, FolderWay, SilenceSpec

SHORTEST_CLOSE: Final = 60 * SECOND
"""A shorter silence that closes is a warning: in a month of ordinary stalls and network losses it fires often."""


def timers(documents: Sequence[Document]) -> tuple[TimerRule, ...]:
    """The switches at venues, by name, with the names of their accounts."""
    found = (
        freeze(
            spec,
            TimerRule,
            name=document.metadata.name,
            accounts=tuple(sorted(account.metadata.name for account in covered_accounts(spec.accounts, documents))),
            place=found.place(("metadata", "name")),
        )
        for document, found in of_kind(documents, DeadManDocument)
        if isinstance(spec := document.spec, DeadManSpec)
    )
    return tuple(sorted(found, key=lambda rule: rule.name))


def silences(documents: Sequence[Document]) -> tuple[SilenceRule, ...]:
    """The switches that a watcher listens for, by name, with the names of their accounts."""
    found = (
        freeze(
            spec,
            SilenceRule,
            name=document.metadata.name,
            accounts=tuple(sorted(account.metadata.name for account in covered_accounts(spec.accounts, documents))),
            ways=tuple(_ways(spec)),
            place=found.place(("metadata", "name")),
        )
        for document, found in of_kind(documents, DeadManDocument)
        if isinstance(spec := document.spec, SilenceSpec)
    )
    return tuple(sorted(found, key=lambda rule: rule.name))


def _ways(spec: SilenceSpec) -> Iterator[HeartbeatWay]:
    for way in spec.ways:
        yield HeartbeatWay("file", way.file) if isinstance(way, FolderWay) else HeartbeatWay("url", way.url, way.token)


def check_switches(everything: Documents, others: FaultyDocuments) -> list[Diagnostic]:
    """Report unknown accounts, accounts with two timers, closes after a short silence, and switches without effect."""
    written = sorted(of_kind(everything, DeadManDocument), key=lambda each: each[0].metadata.name)
    known = {each.name for each in everything if each.kind == "Account" and each.name is not None}
    timed: dict[str, str] = {}
    for document, found in written:
        spec = document.spec
        named_accounts_exist(spec.accounts, known, others, found)
        if found.gaps.has_flaw(("spec",)):
            continue
        covered = covered_accounts(spec.accounts, everything)
        if isinstance(spec, DeadManSpec):
            _require_one_timer(document.metadata.name, covered, timed, found)
        elif spec.on_silence == "close" and spec.timeout < SHORTEST_CLOSE:
            message = "a silence of less than a minute closes: stalls, restarts and lost networks are as long"
            fix = "write `timeout: 60s` or more, or `on_silence: page` or `lock`, which cost nothing"
            found.warning("KS5042", ("spec", "timeout"), message, fix, key=True)
        if known and not others.has_unknown_kinds:
            _warn_without_effect(spec, covered, found)
    return diagnostics_of(written)


def _require_one_timer(name: str, covered: Sequence[AccountDocument], timed: dict[str, str], found: Findings) -> None:
    for account in covered:
        owner = timed.setdefault(account.metadata.name, name)
        if owner != name:
            message = f"`{account.metadata.name}` has a timer by the switch `{owner}` already"
            found.error("KS3041", ("spec", "accounts"), message, "narrow one of the two")


def _warn_without_effect(spec: DeadManSpec | SilenceSpec, covered: Sequence[AccountDocument], found: Findings) -> None:
    """Warn of a switch that covers no account, or only accounts that are observed."""
    observed = [account.metadata.name for account in covered if account.spec.execution == "observe"]
    if not (isinstance(spec.accounts, tuple) or covered):
        message, fix = "no account of this policy set matches `accounts`", "loosen `accounts`, or remove the switch"
        found.warning("KS5040", ("spec", "accounts"), message, fix, key=True)
    elif observed and len(observed) == len(covered):
        what = "no timer is started there" if isinstance(spec, DeadManSpec) else "nothing is locked or closed there"
        message = f"{', '.join(f'`{name}`' for name in observed)}: only observed, so {what}"
        fix = "write `execution: live` once it is to be acted on"
        found.warning("KS5041", ("spec", "accounts"), message, fix, key=True)
