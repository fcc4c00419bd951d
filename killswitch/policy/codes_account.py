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
        "`future` the same currency, since many venues keep a wallet and positions for each. A venue that keeps all "
        "currencies in one book, as a unified account does, wants one document; that is for you to see, no text tells "
        "it. `run --live` goes by the same rule, and refuses that too where only the secrets behind two references are "
        "the same. `venues check` warns of such documents where one of them observes.",
        "kind: Account\nmetadata: {name: main}\nspec: {…, execution: live, credentials: {key: 'env:KEY'}}\n---\n"
        "kind: Account\nmetadata: {name: again}\nspec: {…, execution: live, credentials: {key: 'env:KEY'}}",
        "Take one of the two out, write `execution: observe` in one of them, or give the second the credentials of the "
        "account that was meant.",
    ),
)
