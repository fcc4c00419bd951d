"""Pages of the diagnostic codes of accounts."""

from __future__ import annotations

from killswitch.policy.page import Page

OF_GRAPH: tuple[Page, ...] = (
    Page(
        "KS3050",
        "one account under two names",
        "Two Account documents say `execution: live`, and lead to one account of one venue by the same credentials. "
        "Its book would be counted twice, and two closings would work on it side by side. `run --live` refuses that "
        "too where only the secrets behind two references are the same, which no text tells.",
        "kind: Account\nmetadata: {name: main}\nspec: {…, execution: live, credentials: {key: 'env:KEY'}}\n---\n"
        "kind: Account\nmetadata: {name: again}\nspec: {…, execution: live, credentials: {key: 'env:KEY'}}",
        "Take one of the two out, write `execution: observe` in one of them, or give the second the credentials of the "
        "account that was meant.",
    ),
)
