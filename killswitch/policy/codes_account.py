"""Pages of the diagnostic codes of accounts."""

from __future__ import annotations

from killswitch.policy.page import Page

OF_GRAPH: tuple[Page, ...] = (
    Page(
        "KS3050",
        "one account under two names",
        "Two Account documents say `execution: live`, and lead to one account of one venue by the same credentials. "
        "Its book would be counted twice, and two closings would work on it side by side. One account is: the same "
        "adapter, exchange, market, address, system (`sandbox`, `demo`), `options` and credentials, and for `swap` and "
        "`future` the same currency, since some venues keep a wallet and positions for each. A venue that keeps all "
        "currencies in one book, as a unified account does, wants one document: `run --live`, which knows the venues, "
        "refuses two there, and also where only the secrets behind two references are the same. `venues check` warns "
        "of such documents where one of them observes.",
        "kind: Account\nmetadata: {name: main}\nspec: {…, execution: live, credentials: {key: 'env:KEY'}}\n---\n"
        "kind: Account\nmetadata: {name: again}\nspec: {…, execution: live, credentials: {key: 'env:KEY'}}",
        "Take one of the two out, write `execution: observe` in one of them, or give the second the credentials of the "
        "account that was meant.",
    ),
)

OF_VENUES: tuple[Page, ...] = (
    Page(
        "KS3051",
        "the account does not fit its venue",
        "An Account document asks for what its venue does not have: an exchange that nobody knows, a market, a "
        "currency or a system (`sandbox`, `demo`) that is not there, credentials under other names or too few of them. "
        "The adapter would refuse it, so `run` and `venues check` could not begin. `validate` goes by what the "
        "installed adapters say without connecting, and looks at no secret. Of an exchange that has no dialect of its "
        "own only the name is checked, against the ccxt that is installed. An adapter that says nothing about its "
        "venues is not held to anything here.",
        "kind: Account\nmetadata: {name: main}\nspec: {adapter: ccxt, exchange: binance, market: swap, …}",
        "Write what the message names instead. `ksctl venues list EXCHANGE` shows what an exchange has.",
    ),
)
