"""From `Account` documents to accounts that can be read, and armed ones that can be acted on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from killswitch.model.snapshot import AccountSnapshot
from killswitch.model.venue import AccountSpec
from killswitch.policy.documents import AccountDocument
from killswitch.runner.accounts import ArmedAccount
from killswitch.runner.adapters import make_adapter
from killswitch.runner.credentials import resolve
from killswitch.runner.reading import Readers


class NoAccountsError(Exception):
    """There is nothing to watch."""


def open_accounts(documents: Iterable[object], *, live: bool) -> dict[str, ArmedAccount]:
    """An adapter for each `Account` among the documents' models, by name. No connection is made yet.

    An account is armed only if its document says `execution: live` and `live` is given. Raises NoAccountsError,
    CredentialError or AdapterError.
    """
    found = [document for document in documents if isinstance(document, AccountDocument)]
    if not found:
        raise NoAccountsError(
            "the policies hold no Account document, so there is nothing to watch; add one (kind: Account) to the folder"
        )
    return {document.metadata.name: _open(document, live=live) for document in found}


async def read_once(accounts: Mapping[str, ArmedAccount], patience: float) -> tuple[AccountSnapshot, ...]:
    """Every account read once, for at most `patience` seconds, and the connections given back: for previews."""
    readers = Readers(accounts, patience)
    try:
        return await readers.gather()
    finally:
        await readers.abandon()
        for account in accounts.values():
            await account.adapter.close()


def _open(document: AccountDocument, *, live: bool) -> ArmedAccount:
    name, spec = document.metadata.name, document.spec
    adapter = make_adapter(
        AccountSpec(
            account=name,
            adapter=spec.adapter,
            market=spec.market,
            currency=spec.currency,
            endpoint=spec.endpoint,
            options=dict(spec.options),
            credentials=resolve(spec.credentials, account=name),
        )
    )
    venue = spec.venue or spec.adapter
    return ArmedAccount(name, venue, spec.market, spec.currency, adapter, live and spec.execution == "live")
