"""What the keys of armed accounts may do, asked before a run acts on them. A key that may withdraw is refused.

Asked is what only the venue can tell, by one request to each account, all of them side by side, for one read timeout
at the most. What cannot be read is told and no refusal: a kill switch has to start in an outage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from killswitch.accounts.opening import located, open_accounts
from killswitch.accounts.plug_ins import AdapterError
from killswitch.model.inspection import InspectedVenue, KeyedVenue, KeyRights
from killswitch.model.legible import legible
from killswitch.model.venue import VenueAdapter, VenueError
from killswitch.model.words import Place, Severity
from killswitch.policy.schema.account import AccountDocument

Word = tuple[Severity, str]
"""What the first tick has to tell of it."""
WITHDRAWS = "may withdraw: whoever gets hold of it takes the money"
WITHDRAWS_WAY_OUT = "make one without that right, or say allow_withdrawal_keys: true in the Account document"


class WithdrawalKeyError(AdapterError):
    """A key may withdraw, and its document does not allow that; the message has the place, the cause, the way out."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """`rights`: None where they could not be read, which `why` says."""

    document: AccountDocument
    rights: KeyRights | None
    why: str = ""


async def require_harmless_keys(
    documents: Iterable[AccountDocument], places: Mapping[str, Place], patience: float
) -> tuple[Word, ...]:
    """What must be told of the keys of accounts that say `execution: live`. WithdrawalKeyError if one may withdraw.

    `places`: where each account is written. `patience`: seconds for all of them together. An account without
    credentials, and one whose document allows such a key, is not asked for.
    """
    wanted = [
        each for each in documents
        if each.spec.execution == "live" and each.spec.credentials and not each.spec.allow_withdrawal_keys
    ]  # fmt: skip
    asked = await asyncio.gather(*(_ask(each, patience) for each in wanted))
    refused = [_refusal(each.document, places) for each in asked if each.rights is not None and each.rights.withdraw]
    if refused:
        raise WithdrawalKeyError("; ".join(refused))
    return tuple(word for each in asked for word in _words(each))


async def _ask(document: AccountDocument, patience: float) -> _Asked:
    # With an adapter of its own: those of the run belong to its loop, and have not been asked for anything yet.
    adapter = open_accounts([document], live=False)[document.metadata.name].adapter
    try:
        async with asyncio.timeout(patience):
            rights = await _rights(adapter)
    except TimeoutError:
        return _Asked(document, None, f"no answer within {patience:g} s")
    except VenueError as error:
        return _Asked(document, None, legible(str(error) or type(error).__name__))
    except Exception as error:  # noqa: BLE001 - an adapter's defect is no reason not to start
        return _Asked(document, None, legible(f"the adapter failed: {type(error).__name__}: {error}"))
    finally:
        await _closed(adapter)
    return _Asked(document, rights)


async def _rights(adapter: VenueAdapter) -> KeyRights:
    if isinstance(adapter, KeyedVenue):
        return await adapter.key_rights()
    if isinstance(adapter, InspectedVenue):
        return (await adapter.inspect()).rights
    return KeyRights(note="the adapter cannot be asked")


async def _closed(adapter: VenueAdapter) -> None:
    """Give the connection back; what goes wrong there is no news of the key."""
    try:
        async with asyncio.timeout(1.0):
            await adapter.close()
    except Exception:  # noqa: BLE001 - the answer is there
        return


def _refusal(document: AccountDocument, places: Mapping[str, Place]) -> str:
    name = document.metadata.name
    return f"{located(places.get(name))}account {name}: its key {WITHDRAWS}; {WITHDRAWS_WAY_OUT}"


def _words(asked: _Asked) -> Iterable[Word]:
    name = asked.document.metadata.name
    if asked.rights is None:
        yield (
            "warning",
            f"what the key of account {name} may do could not be read at the start ({asked.why}): look with "
            f"`ksctl venues check {name}` that it may not withdraw",
        )
        return
    if asked.rights.withdraw is None:
        why = f" ({asked.rights.note})" if asked.rights.note else ""
        yield (
            "info",
            f"whether the key of account {name} may withdraw is unknown{why}; allow_withdrawal_keys: true in the "
            "Account document says that you have looked at the venue",
        )
    if asked.rights.trade is False:
        yield "page", f"the key of account {name} may not trade: nothing can be closed with it"
