"""Opens what a runner needs from paths and options: policies, their commit, accounts, adapters."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field

from killswitch.accounts.arming import ArmedAccount
from killswitch.accounts.credentials import resolve
from killswitch.accounts.plug_ins import AdapterError, make_adapter
from killswitch.accounts.poll.poller import Polls
from killswitch.accounts.validation import account_misfits, armed_duplicates, duplicate_message, environment_of
from killswitch.graph.freezing import freeze, frozen_from
from killswitch.graph.nodes import PolicySet
from killswitch.graph.resolution.accounts import unencrypted
from killswitch.graph.resolution.references import sessions
from killswitch.graph.resolution.routes import unrouted_names
from killswitch.incident.record.incident_decisions import Runbooks
from killswitch.incident.report.runbooks import compile_all, declared_runbooks
from killswitch.model.applied_set import PolicyFile
from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import AccountSpec, VenueAdapter
from killswitch.model.words import Place
from killswitch.policy.diagnostics.diagnostic import Diagnostic, counts, in_order
from killswitch.policy.kinds import TESTS
from killswitch.policy.loader import Document, LoadedDocuments, load
from killswitch.policy.schema import account as schema
from killswitch.policy.schema.account import AccountDocument, venue_of
from killswitch.policy.yaml.masked_text import MaskedText
from killswitch.ratelimit.budget import RequestBudgets
from killswitch.signals.sessions import TradingSession

frozen_from(
    schema.AccountSpec, by_hand=["credentials", "sandbox", "demo"],
    market=("market", str), options=("options", dict), watch=("watch", lambda written: tuple(dict.fromkeys(written))),
)(AccountSpec)  # fmt: skip
frozen_from(
    schema.AccountSpec, by_hand=["adapter", "venue", "execution", "allow_withdrawal_keys", "allow_unencrypted"]
)(ArmedAccount)

STARTED_WITH = ("Account", "DeadMansSwitch")
"""The kinds of documents that only a start reads."""
SUSPEND_OPTION = "suspend_trade"
"""The key of an account's `options` that suspends trading at the broker under a lock of mode `all`."""


class PolicyProblemsError(Exception):
    """The policies cannot be used; `diagnostics` has the place and the cause of every error."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__(f"{counts(diagnostics)} in the policies")
        self.diagnostics = tuple(diagnostics)


class NoAccountsError(Exception):
    """The policies hold no account."""


class LoadedPolicies(Struct, frozen=True):
    """The content of the policy files: compiled policies, accounts, and the compiler's warnings."""

    policies: PolicySet
    accounts: tuple[AccountDocument, ...]
    warnings: tuple[Diagnostic, ...]
    runbooks: Runbooks = field(default_factory=dict)
    """Policy → stage → its runbook."""
    places: Mapping[str, Place] = field(default_factory=dict)
    """Account → where its spec is written."""
    unrouted: tuple[Diagnostic, ...] = ()
    """Names under `notify` that no route contains."""
    sessions: Mapping[str, TradingSession] = field(default_factory=dict)
    """The sessions that a lock by hand may end with, by name."""
    files: tuple[PolicyFile, ...] = ()
    """All files, with paths relative to the folder; of several folders, each path begins with the name of its own."""
    start_documents: tuple[Document, ...] = ()
    """The documents that only a start reads: accounts and dead-man switches."""


def read_policies(paths: Sequence[Path], *, variant: str | None = None) -> LoadedPolicies:
    """Load and compile; PolicyProblemsError if there is any error.

    `variant` is selected in every policy that declares it; NoSuchVariantError if none does. None: as the text selects.
    Tests beside the policies are not read: what is wrong with them is shown by `validate`.
    """
    loaded = load(paths, without=TESTS)
    # Unreadable files have no commit, and git would wait for a mount that hangs.
    commit = None if loaded.has_unidentified else commit_of(paths)
    return compiled(loaded, commit, variant=variant, files=files_at(paths, loaded.texts))


def compiled(
    loaded: LoadedDocuments, commit: str | None, *, variant: str | None = None, files: tuple[PolicyFile, ...] = ()
) -> LoadedPolicies:
    """Compile loaded documents; PolicyProblemsError if there is any error. `files`: where they were loaded from."""
    policies, diagnostics = compile_all(loaded, commit, variant=variant)
    if policies is None:
        raise PolicyProblemsError(in_order((*diagnostics, *account_misfits(loaded))))
    account_documents = [document for document in loaded.documents if isinstance(document.model, AccountDocument)]
    accounts = tuple(document.model for document in account_documents if isinstance(document.model, AccountDocument))
    places = {document.name: document.source.place(("spec", "credentials")) for document in account_documents}
    of_start = tuple(each for each in loaded.documents if each.kind in STARTED_WITH)
    unrouted = (each for each in diagnostics if each.code == "KS5020")
    return LoadedPolicies(
        policies, accounts, diagnostics, declared_runbooks(loaded.documents), places,
        (*unrouted, *unrouted_names(loaded.documents)), sessions(loaded.documents), files, of_start,
    )  # fmt: skip


def files_at(paths: Sequence[Path], written: Iterable[MaskedText]) -> tuple[PolicyFile, ...]:
    """The files that were read at or below `paths`, as they were read then."""
    texts = {Path(each.file): each.text.encode() for each in written}
    found: dict[str, bytes] = {}
    for number, path in enumerate(paths):
        prefix = "" if len(paths) == 1 else f"{path.name or number}/"
        for file, content in texts.items():
            if file == path:
                found.setdefault(f"{prefix}{file.name}" if len(paths) == 1 else file.name, content)
            elif file.is_relative_to(path):
                name = f"{prefix}{file.relative_to(path).as_posix()}"
                found.setdefault(name if name not in found else f"{number}-{name}", content)
    return tuple(PolicyFile(name, content) for name, content in sorted(found.items()))


def open_accounts(
    documents: Iterable[AccountDocument],
    *,
    live: bool,
    gated: Collection[str] = (),
    adapters: Mapping[str, VenueAdapter] = {},  # nothing changes it
) -> dict[str, ArmedAccount]:
    """An adapter for each `Account` document, by name. No connection is made yet.

    `gated`: the accounts with limits, whose orders are read before their positions. `adapters`: account → an adapter
    that exists already, in place of the one that its document names; its credentials are its own.

    An account is armed only if its document sets `execution: live` and `live` is true. Raises NoAccountsError,
    CredentialError or AdapterError.
    """
    documents = tuple(documents)
    accounts = {
        document.metadata.name: _open(document, live=live, gated=gated, adapter=adapters.get(document.metadata.name))
        for document in documents
    }
    for first, second in armed_duplicates(documents) if live else ():
        raise AdapterError(duplicate_message(first, second))  # two executors would work on one book
    if not accounts:
        raise NoAccountsError(
            "the policies hold no Account document, so there is nothing to watch; "
            "add one (kind: Account) to the folder, or name its file with another --policies"
        )
    return accounts


def require_encrypted(documents: Iterable[AccountDocument], places: Mapping[str, Place]) -> None:
    """AdapterError for an account with `execution: live` whose credentials would leave the machine unencrypted.

    `places`: where each account is written.
    """
    armed = [document for document in documents if document.spec.execution == "live" and unencrypted(document.spec)]
    refused = [
        f"{place_prefix(places.get(each.metadata.name))}account {each.metadata.name}: {unencrypted_message(each)}"
        for each in armed
    ]
    if refused:
        raise AdapterError("; ".join(refused))


def unencrypted_message(document: AccountDocument) -> str:
    """The message about an armed account whose credentials would leave the machine unencrypted."""
    keys = " and ".join(unencrypted(document.spec))
    return (
        f"{keys} would send its credentials beyond this machine without TLS (KS5095); write https:// (wss://), or "
        "allow_unencrypted: true where the network itself is trusted"
    )


def place_prefix(place: Place | None) -> str:
    """The beginning of a message about a place in a file."""
    return "" if place is None else f"{place.file}:{place.line}:{place.column}: "


async def read_once(accounts: Mapping[str, ArmedAccount], within: float) -> tuple[AccountSnapshot, ...]:
    """Poll every account once, for at most `within` seconds, and close the connections; for previews."""
    polls = Polls(accounts, within)
    try:
        return await polls.gather()
    finally:
        await polls.abandon()
        for account in accounts.values():
            await account.adapter.close()


def _open(
    document: AccountDocument, *, live: bool, gated: Collection[str], adapter: VenueAdapter | None
) -> ArmedAccount:
    name, spec = document.metadata.name, document.spec
    if spec.endpoint_ws is not None and not spec.endpoint_ws.startswith(("ws://", "wss://")):
        scheme = spec.endpoint_ws.partition("://")[0]
        raise AdapterError(f"account {name}: endpoint_ws begins with ws:// or wss://, not {scheme}://")
    if spec.sandbox and spec.demo:
        raise AdapterError(f"account {name}: sandbox and demo are two systems of a venue; remove one of them")
    adapter = adapter or make_adapter(
        freeze(
            spec,
            AccountSpec,
            account=name,
            credentials=resolve(spec.credentials, account=name),
            environment=environment_of(spec),
            orders_first=name in gated,
        )
    )
    venue = venue_of(spec)
    try:
        RequestBudgets().of(name, venue, adapter.traits, spec.closing_share)
    except ValueError as error:
        raise AdapterError(
            f"account {name}: adapter {spec.adapter} declares inconsistent request limits: {error}"
        ) from error
    armed = live and spec.execution == "live"
    suspends = spec.options.get(SUSPEND_OPTION) is True
    if suspends and adapter.suspend_trading is None:
        raise AdapterError(
            f"account {name}: {SUSPEND_OPTION} is set, and adapter {spec.adapter} cannot suspend trading at a "
            "broker; remove the option"
        )
    return freeze(spec, ArmedAccount, name=name, venue=venue, adapter=adapter, armed=armed, suspends=suspends)


_GIT_TIMEOUT = 5.0


def commit_of(paths: Sequence[Path]) -> str | None:
    """The commit that holds exactly these files as they are on disk; None if none does (no git, changed, ignored)."""
    if not paths:
        return None
    start = paths[0] if paths[0].is_dir() else paths[0].parent
    commit = _git(start, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git(start, "status", "--porcelain", "--ignored", "--", *(str(path.resolve()) for path in paths))
    return commit if changes == "" else None


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of git; None if it is not installed, fails, or takes too long."""
    try:
        done = subprocess.run(
            ("git", "-C", str(folder), *arguments), capture_output=True, text=True, timeout=_GIT_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # a policy set without a commit is identified by its digest
    return done.stdout.strip()
