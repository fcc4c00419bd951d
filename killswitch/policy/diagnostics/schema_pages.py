"""Pages of the codes about what documents may say: KS20xx, KS21xx, KS22xx."""

from __future__ import annotations

from killswitch.policy.diagnostics.problem import Page

_KEYS = (
    Page(
        "KS2001",
        "An unknown key",
        "The key means nothing here. It is refused, not ignored: a misspelt `confrim` that is ignored would fire at "
        "once. The nearest known key is suggested.",
        "fall-15m: {signal: equity.drawdown, windw: 15m, at_least: 4.5%, on_unknown: hold}",
        "Write the key as suggested, or take it out.",
    ),
    Page(
        "KS2002",
        "A key is missing",
        "A key that has no safe value of its own is not there. Nothing plausible is put in its place: how long to "
        "wait, what unknown data does and who resets are decisions of the risk desk.",
        "fall-15m: {signal: equity.drawdown, window: 15m, at_least: 4.5%}     # on_unknown is missing",
        "Add the key. `ksctl schema KIND` says which keys may be left out, and what that means.",
    ),
    Page(
        "KS2003",
        "The wrong sort of value",
        "A list stands where a mapping is wanted, a number where text is wanted, or the like. YAML reads `12` and "
        "`true` as a number and a truth value unless they are in quotes.",
        "metadata: {name: main, labels: {desk: 12}}",
        "Write the sort of value that the message names; text goes in quotes.",
    ),
    Page(
        "KS2004",
        "Not one of the possible words",
        "The key takes one of a few words, and this is none of them.",
        "mode: enforced",
        "Write one of the words in the message.",
    ),
    Page(
        "KS2005",
        "A key without a value",
        "Nothing stands after the colon, or `null` does. Left out on purpose and forgotten look the same, so neither "
        "is guessed.",
        "stale_after:",
        "Write a value, or take the whole key out where it may be left out.",
    ),
    Page(
        "KS2006",
        "A number out of range",
        "The number is not whole, or not within the bounds in the message. Levels are 1 to 9.",
        "level: 12",
        "Write a whole number within the bounds.",
    ),
    Page(
        "KS2007",
        "An empty list",
        "The list must name at least one. An empty list of symbols, say, could mean all or none.",
        "close: {side: both, fraction: 100%, symbols: []}",
        "Name at least one, or take the key out where it may be left out.",
    ),
)

_VALUES = (
    Page(
        "KS2101",
        "Not a duration",
        "A duration is a number with its unit: ms, s, m, h or d, or several of them, as in 1h30m. A bare number could "
        "be seconds or minutes. It must be above zero (cooldowns and holds may be 0s) and at most 3660d.",
        "max_gap: 10",
        "Write the unit: 10s, 10m.",
    ),
    Page(
        "KS2102",
        "Not a percentage",
        "A share is written as a percentage (4.5%) or as a fraction (0.045), above 0 and at most 100%. The share that "
        "makes a side the losing one must be above 50%, so that not both sides can have it.",
        "fraction: 50      # five thousand per cent",
        "Write 50% or 0.5.",
    ),
    Page(
        "KS2103",
        "Not a threshold or a weight",
        "A threshold is a number with the unit of its signal: 4.5%, 10000 USDT, 30s, 250ms; a plain number for counts, "
        "ratios and fractions. A weight is a plain number, 0 or more. Thousands are not separated.",
        "at_least: 10,000 USDT",
        "Write the number plainly, a blank, and the unit: 10000 USDT.",
    ),
    Page(
        "KS2104",
        "Not a confirmation",
        "`confirm` is a time (2m), or a number of scheduled ticks (3 ticks). A time is better: three ticks are three "
        "seconds or fifteen minutes, by the interval of the runner.",
        "confirm: 2",
        "Write 2m, or `2 ticks`.",
    ),
    Page(
        "KS2105",
        "Not a name",
        "Names of documents, stages, rankings, runbooks and routes consist of small letters, digits, - and ., at most "
        "63, and begin and end with a letter or digit. Symbols, currencies and accounts hold no blanks. A name that "
        "looks like a number needs quotes.",
        "metadata: {name: Futures Drawdown}",
        "Write futures-drawdown.",
    ),
    Page(
        "KS2106",
        "A secret in a policy",
        "A credential is written out, or an address carries a user and a password. Policies are in version control and "
        "are read by many; the program keeps references only, and shows neither the value nor the line.",
        "credentials: {secret: hunter2}",
        "Write env:NAME or file:PATH. If the secret was ever real, change it at the venue: it has been in a file.",
    ),
    Page(
        "KS2107",
        "Not an address",
        "An endpoint begins with http://, https://, ws:// or wss:// and holds no blanks.",
        "endpoint: localhost:8700",
        "Write http://127.0.0.1:8700.",
    ),
)

_TOGETHER = (
    Page(
        "KS2201",
        "A trigger of both forms, or of none",
        "A trigger is either a signal with a threshold (`signal`, `at_least` …) or an expression (`when`). With both, "
        "one would be ignored; with neither, it watches nothing.",
        "big: {signal: equity.drawdown, window: 15m, at_least: 5%, when: 'equity.value < 1000.0', on_unknown: hold}",
        "Keep one of the two, and make the other a trigger of its own.",
    ),
    Page(
        "KS2202",
        "A trigger without one comparison",
        "The threshold form has exactly one of at_least, at_most, above and below.",
        "fall-15m: {signal: equity.drawdown, window: 15m, on_unknown: hold}",
        "Add the missing one, or make a trigger for each.",
    ),
    Page(
        "KS2203",
        "A stage without triggers",
        "A stage fires when one of its `any` and all of its `all` are confirmed. With neither it never fires.",
        "- name: close-everything\n  level: 3\n  cooldown: 6h\n  reset: manual\n  actions: []",
        "Name triggers under `any` or `all`.",
    ),
    Page(
        "KS2204",
        "An action that is not one thing",
        "Each item of `actions` is a mapping with one key: lock_trading, cancel_orders or close.",
        "actions:\n  - close: {side: both, fraction: 100%}\n    cancel_orders: {kind: all}",
        "Give each its own dash.",
    ),
    Page(
        "KS2205",
        "The losing side, but which?",
        "`close: {side: losing}` needs the stage's `attribution`: from which share of the losses on a side is the "
        "losing one, and what is selected when neither is (MIXED) or nobody knows (UNKNOWN).",
        "actions: [{close: {side: losing, fraction: 100%}}]     # and no attribution in the stage",
        "Add attribution: {source_at_least: 0.65, if_mixed: worst_ranked, if_unknown: worst_ranked}, with your own "
        "share and fallbacks.",
    ),
    Page(
        "KS2210",
        "Keys of another formula",
        "The formulas component-risk and genesis read recorded returns: they need the time between two marks "
        "(`sample`) and how many returns it takes to know anything (`least`); component-risk also what ranks until "
        "then (`if_unknown`). No other formula has them, and genesis has no `weights`: it is a product.",
        "kind: Ranking\nspec: {formula: component-risk, window: 4h}",
        "Add sample: 1m and least: 30, for component-risk if_unknown: normalised, with your own numbers; or take out "
        "what the formula does not read.",
    ),
)

PAGES: tuple[Page, ...] = (*_KEYS, *_VALUES, *_TOGETHER)
