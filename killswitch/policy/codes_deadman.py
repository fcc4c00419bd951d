"""Pages of the diagnostic codes of dead man's switches."""

from __future__ import annotations

from killswitch.policy.page import Page

OF_SCHEMA: tuple[Page, ...] = (
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

OF_GRAPH: tuple[Page, ...] = (
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
