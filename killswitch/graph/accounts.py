"""What can be told of the accounts of a policy set beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from killswitch.graph.references import findings
from killswitch.policy.account_document import AccountDocument, AccountSpec
from killswitch.policy.diagnostics import Diagnostic
from killswitch.policy.loader import Document, Faulty


def check_accounts(everything: Sequence[Document | Faulty]) -> list[Diagnostic]:
    """Accounts that are armed twice, as far as text tells it: the same references to credentials, at one venue.

    `run --live` goes by the credentials themselves, and refuses those too that are the same under two names. It also
    refuses the addresses that are only warned of here.
    """
    diagnostics: list[Diagnostic] = []
    before: list[AccountDocument] = []
    for document in sorted(everything, key=lambda each: each.name or ""):
        account, found = document.model, findings(document)
        if not isinstance(account, AccountDocument) or found.gaps.flawed(("spec",)):
            continue
        for key in unencrypted(account.spec):
            message = f"{key} has no TLS: credentials and orders can be read, and answers changed, on the way"
            fix = "write https:// (wss://), or `allow_unencrypted: true` where the network itself is trusted"
            found.warning("KS5095", ("spec", key), message, fix)
        diagnostics += found.diagnostics
        if account.spec.execution != "live" or not account.spec.credentials:
            continue
        twin = next((each for each in before if book_of(each.spec) == book_of(account.spec)), None)
        if twin is not None:
            message = (
                f"`{account.metadata.name}` and `{twin.metadata.name}` are one account of one venue, and both are armed"
            )
            fix = "take one of the two documents out, write `execution: observe` in one, or correct its credentials"
            twice = findings(document)
            twice.error("KS3050", ("spec", "credentials"), message, fix)
            diagnostics += twice.diagnostics
        before.append(account)
    return diagnostics


def unencrypted(spec: AccountSpec) -> tuple[str, ...]:
    """The keys whose address takes credentials beyond this machine in clear; none where the document allows that."""
    if spec.allow_unencrypted or not spec.credentials:
        return ()
    addresses = {"endpoint": spec.endpoint, "endpoint_ws": spec.endpoint_ws}
    return tuple(name for name, address in addresses.items() if address is not None and _readable_by_others(address))


def _readable_by_others(address: str) -> bool:
    """Whether what is sent there leaves the machine without TLS. A name that is not `localhost` may lead anywhere."""
    try:
        parts = urlsplit(address)
        if parts.scheme.lower() not in ("http", "ws"):
            return False
        host = parts.hostname or ""
        return host != "localhost" and not ip_address(host).is_loopback
    except ValueError:
        return True


def book_of(
    spec: AccountSpec, credentials: Mapping[str, str] | None = None, *, apart: bool = True
) -> tuple[object, ...]:
    """What says to which book of a venue these keys lead: equal for two documents of one book, as far as they tell.

    A venue's name, a share of its limits and the like make no other book. The currency may for derivatives, where the
    venue keeps a wallet and positions for each; what lies at spot, on margin or in stocks is the same in any currency.

    `credentials`: the secrets themselves, where they are known. Left out: the references to them. `apart`: whether the
    venue keeps derivatives of each currency apart; text alone does not tell, and refuses nobody who may be right.
    """
    keys = spec.credentials if credentials is None else credentials
    currency = spec.currency if apart and spec.market in _SETTLED else None
    return (
        spec.adapter, spec.exchange, spec.market, currency, spec.endpoint, spec.sandbox, spec.demo,
        repr(sorted(spec.options.items())), frozenset(keys.items()),
    )  # fmt: skip


_SETTLED: Final = ("swap", "future")
"""Markets whose positions settle in a currency."""
