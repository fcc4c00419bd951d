"""Pages of the diagnostic codes of accounts, dead man's switches and notification routes."""

from __future__ import annotations

from killswitch.policy.diagnostics.problem import Page

ACCOUNT_PAGES: tuple[Page, ...] = (
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


TIMER_SCHEMA_PAGES: tuple[Page, ...] = (
    Page(
        "KS2230",
        "a dead man's switch that is not there yet",
        "The only kind there is now is a timer of the venue itself (`at_venue: true`). Whoever relies on another kind "
        "would rely on nothing.",
        "kind: DeadMansSwitch\nspec: {accounts: [main], at_venue: false, timeout: 60s, refresh: 20s}",
        "Write `at_venue: true` where the venue has a timer (`ksctl venues list` says which), or take the document out "
        "and let bots go by the lock file: it goes stale when the runner is gone, and stale is locked.",
    ),
    Page(
        "KS2231",
        "a refresh that comes too seldom",
        "The timer is started anew at every refresh. If a timeout holds fewer than two of them, a single request that "
        "is lost makes the venue cancel every resting order while the runner is well.",
        "spec: {…, timeout: 60s, refresh: 45s}",
        "Refresh at least twice in a timeout; a third of it is usual: `timeout: 60s`, `refresh: 20s`.",
    ),
)

TIMER_GRAPH_PAGES: tuple[Page, ...] = (
    Page(
        "KS3040",
        "there is no such account to watch over",
        "A switch names an account for which there is no Account document beside the others: its timer would never be "
        "started, and that would show only when it is needed.",
        "kind: DeadMansSwitch\nspec: {accounts: [mian], …}",
        "Correct the name, or add the Account.",
    ),
    Page(
        "KS3041",
        "two switches for one account",
        "An account has one timer at its venue. Two switches would start it anew with two timeouts in turn.",
        "kind: DeadMansSwitch\nmetadata: {name: all}\nspec: {accounts: {}, …}\n---\n"
        "kind: DeadMansSwitch\nmetadata: {name: main}\nspec: {accounts: [main], …}",
        "Narrow one of them, so that each account is in one switch.",
    ),
    Page(
        "KS5040",
        "a switch for no account",
        "No Account of the set is what `accounts` asks for, so the switch watches over nothing.",
        "kind: DeadMansSwitch\nspec: {accounts: {venue: [binance]}, …}     # and the account's venue is binanceusdm",
        "Ask for less, or take the switch out.",
    ),
    Page(
        "KS5041",
        "a switch for an account that is only observed",
        "A timer is started for armed accounts only, and this one says `execution: observe`.",
        "kind: DeadMansSwitch\nspec: {accounts: [main], …}\n---\nkind: Account\nmetadata: {name: main}\n"
        "spec: {execution: observe, …}",
        "Write `execution: live` once the account is to be acted on, or leave it: nothing happens there meanwhile.",
    ),
)


ROUTE_SCHEMA_PAGES: tuple[Page, ...] = (
    Page(
        "KS2110",
        "A target that is not one thing",
        "Each item of `targets` is a mapping with one key: log, file or apprise.",
        "targets:\n  - log: {level: warning}\n    apprise: {url: env:RISK_DESK_URL}",
        "Give each its own dash.",
    ),
    Page(
        "KS2111",
        "A path that is not from the root",
        "A relative path means another file wherever the program is started from, and what was to be kept is then "
        "looked for in the wrong place. A path that ends in a slash names a folder.",
        "file: {path: notifications.jsonl}",
        "Write the whole path, such as /var/log/killswitch/notifications.jsonl.",
    ),
)

ROUTE_GRAPH_PAGES: tuple[Page, ...] = (
    Page(
        "KS5020",
        "nobody is told",
        "A stage names someone under `notify`, and no NotificationRoute of the set takes what is meant for that name. "
        "The stage fires and acts all the same; only the message is sent nowhere. `run --live` does not start so, "
        "unless it is given `--unnotified`.",
        "stages: [{name: trim, notify: [risk-desc], …}]\n---\nkind: NotificationRoute\n"
        "spec: {match: {notify: risk-desk}, …}",
        "Correct the name, or add a route whose `match.notify` has it.",
    ),
    Page(
        "KS5021",
        "a route that can never match",
        "What the route asks for never comes together: a policy or a scope of none, a level above every stage's, a "
        "name that no stage notifies, labels that no policy has, or a level of notices, which have none.",
        "match: {level: {at_least: 5}}     # and no stage above level 3",
        "Ask for less, or take the route out.",
    ),
    Page(
        "KS5022",
        "nobody is told when the program itself is in trouble",
        "The set has routes, but none of them takes a page of the program's own: a lock that cannot be written, a "
        "close that stands still, a target of notifications that is down. Such notices have no level, labels "
        "and names; their policy and scope are `runner`.",
        "kind: NotificationRoute\nspec: {match: {level: {at_least: 1}}, …}     # and no other",
        "Add a route with `match: {events: notice, severity: page}`, or take a demand out of one that there is.",
    ),
)

OF_TARGETS: tuple[Page, ...] = (
    Page(
        "KS5029",
        "a target that cannot work from here",
        "What a route leads to takes no message from this process: an environment variable is not set, a secret's file "
        "cannot be read or holds no URL that Apprise understands, a file cannot be opened or made. It would be found "
        "out at the incident. `run --live` does not start so, unless it is given `--unnotified`. A `validate` that "
        "runs elsewhere than the runner, in CI say, may not have its secrets.",
        "apprise: {url: 'env:RISK_DESK_URL'}     # and RISK_DESK_URL is not set",
        "Put it right where the runner runs, and try it with `ksctl notify test --policies DIR`.",
    ),
)
