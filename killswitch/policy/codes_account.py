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
    Page(
        "KS5095",
        "credentials would go over the network in clear",
        "An Account document with credentials names an `endpoint` with http://, or an `endpoint_ws` with ws://, that "
        "is not on this machine. Whoever is on the way there reads keys and orders, can send orders with them, and can "
        "answer in the venue's place. It is a warning here and where a run only observes; `run --live` refuses to "
        "start with such an account that says `execution: live`.",
        "kind: Account\nmetadata: {name: main}\nspec: {…, endpoint: 'http://gateway.internal', "
        "credentials: {key: 'env:KEY'}}",
        "Write https:// (wss://) and give the gateway a certificate, or let a proxy on this machine speak TLS for you "
        "(`http://127.0.0.1:PORT`). Where the network itself is trusted, `allow_unencrypted: true` says so on record.",
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
    Page(
        "KS3060",
        "the adapter is not installed",
        "`adapter` names what leads to the venue: the entry point of an installed package, in the group "
        "`killswitch.adapters`. None has this name, so `run` and `venues check` could not begin.",
        "kind: Account\nmetadata: {name: main}\nspec: {adapter: cxct, exchange: okx, market: swap, …}",
        "Correct the name, or install the package that offers it. ccxt, alpaca and paper come with Killswitch; any "
        "other comes from whoever made it.",
    ),
    Page(
        "KS5096",
        "the library of the adapter is not installed",
        "The adapter is there, and the library that it works with is not: `run` refuses to start. Policies may be "
        "written and checked on a machine that never runs them, so it is a warning here.",
        "kind: Account\nmetadata: {name: main}\nspec: {adapter: ccxt, exchange: okx, market: swap, …}",
        "Install it where the switch runs: `pip install '.[ccxt]'` or `pip install '.[alpaca]'` in a clone of "
        "Killswitch.",
    ),
)
