"""Pages of the diagnostic codes of notification routes."""

from __future__ import annotations

from killswitch.policy.page import Page

OF_SCHEMA: tuple[Page, ...] = (
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

OF_GRAPH: tuple[Page, ...] = (
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
