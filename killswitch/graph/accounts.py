"""What can be told of the accounts of a policy set beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.graph.references import findings
from killswitch.policy.account_document import AccountDocument, AccountSpec
from killswitch.policy.diagnostics import Diagnostic
from killswitch.policy.loader import Document, Faulty


def check_accounts(everything: Sequence[Document | Faulty]) -> list[Diagnostic]:
    """Accounts that are armed twice, as far as text tells it: the same references to credentials, at one venue.

    `run --live` goes by the credentials themselves, and refuses those too that are the same under two names.
    """
    diagnostics: list[Diagnostic] = []
    before: list[AccountDocument] = []
    for document in sorted(everything, key=lambda each: each.name or ""):
        account, found = document.model, findings(document)
        if not isinstance(account, AccountDocument) or found.gaps.flawed(("spec",)):
            continue
        if account.spec.execution != "live" or not account.spec.credentials:
            continue
        twin = next((each for each in before if _is_one(each.spec, account.spec)), None)
        if twin is not None:
            message = (
                f"`{account.metadata.name}` and `{twin.metadata.name}` are one account of one venue, and both are armed"
            )
            fix = "take one of the two documents out, write `execution: observe` in one, or correct its credentials"
            found.error("KS3050", ("spec", "credentials"), message, fix)
            diagnostics += found.diagnostics
        before.append(account)
    return diagnostics


def _is_one(first: AccountSpec, second: AccountSpec) -> bool:
    """Whether both lead to the same book. The name of a venue, a share of limits and the like make no other."""
    return all(getattr(first, each) == getattr(second, each) for each in _LEADING)


_LEADING = ("adapter", "exchange", "endpoint", "market", "sandbox", "demo", "options", "credentials")
"""What says which account it is."""
