"""Rights of the keys of armed accounts, checked before a run. A key that may withdraw is refused.

One request per account, in parallel, within one read timeout. Unreadable rights are a warning and do not stop a start:
a kill switch must start during an outage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial

from killswitch.accounts.opening import open_accounts, place_prefix
from killswitch.accounts.plug_ins import AdapterError
from killswitch.model.inspection import KeyRights
from killswitch.model.venue import VenueAdapter
from killswitch.model.words import Place, Severity
from killswitch.policy.schema.account import AccountDocument
from killswitch.preflight.inspection import call_adapter, close_adapter

KeyWarning = tuple[Severity, str]
"""Severity and text of a warning for the first tick."""
WITHDRAWS = "may withdraw: anyone who obtains it can take the funds"
WITHDRAWS_WAY_OUT = "create one without that right, or set allow_withdrawal_keys: true in the Account document"


class WithdrawalKeyError(AdapterError):
    """A key may withdraw, and its document does not allow that."""


async def require_harmless_keys(
    documents: Iterable[AccountDocument], places: Mapping[str, Place], within: float
) -> tuple[KeyWarning, ...]:
    """Warnings about the keys of accounts with `execution: live`. WithdrawalKeyError if one may withdraw.

    `places`: the place of each account's document. `within`: seconds for all requests together. Accounts without
    credentials, and documents that allow such a key, are not checked.
    """
    checked = [
        each for each in documents
        if each.spec.execution == "live" and each.spec.credentials and not each.spec.allow_withdrawal_keys
    ]  # fmt: skip
    answers = await asyncio.gather(*(_read_rights(each, within) for each in checked))
    found = [(each.metadata.name, *answer) for each, answer in zip(checked, answers, strict=True)]
    refused = [name for name, rights, _ in found if rights is not None and rights.withdraw]
    if refused:
        why = f"its key {WITHDRAWS}; {WITHDRAWS_WAY_OUT}"
        raise WithdrawalKeyError("; ".join(f"{place_prefix(places.get(it))}account {it}: {why}" for it in refused))
    return tuple(warning for each in found for warning in _warnings(*each))


async def _read_rights(document: AccountDocument, within: float) -> tuple[KeyRights | None, str | None]:
    """The key rights, or why they could not be read."""
    # A separate adapter: those of the run belong to its event loop.
    adapter = open_accounts([document], live=False)[document.metadata.name].adapter
    try:
        return await call_adapter(partial(_rights, adapter), within)
    finally:
        await close_adapter(adapter, 1.0)


async def _rights(adapter: VenueAdapter) -> KeyRights:
    if adapter.key_rights is not None:
        return await adapter.key_rights()
    if adapter.inspect is not None:
        return (await adapter.inspect()).rights
    return KeyRights(note="the adapter cannot report them")


def _warnings(name: str, rights: KeyRights | None, error: str | None) -> Iterable[KeyWarning]:
    if rights is None:
        yield (
            "warning",
            f"the rights of the key of account {name} could not be read at the start ({error}): check with "
            f"`ksctl venues check {name}` that it may not withdraw",
        )
        return
    if rights.withdraw is None:
        why = f" ({rights.note})" if rights.note else ""
        yield (
            "info",
            f"whether the key of account {name} may withdraw is unknown{why}; allow_withdrawal_keys: true in the "
            "Account document confirms that you checked it at the venue",
        )
    if rights.trade is False:
        yield "page", f"the key of account {name} may not trade: it cannot close positions"
