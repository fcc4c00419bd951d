"""Pages of the codes that compiling gives: references and the graph (KS3), expressions (KS4), warnings (KS5)."""

from __future__ import annotations

from killswitch.policy.diagnostics.account_pages import ACCOUNT_PAGES as OF_ACCOUNTS
from killswitch.policy.diagnostics.account_pages import ROUTE_GRAPH_PAGES as OF_ROUTES
from killswitch.policy.diagnostics.account_pages import TIMER_GRAPH_PAGES as OF_TIMERS
from killswitch.policy.diagnostics.problem import Page
from killswitch.policy.diagnostics.unwinding_pages import OF_GRAPH as OF_UNWINDINGS

_REFERENCES = (
    Page(
        "KS3001",
        "there is no such signal",
        "A trigger, a reset or an `all_if` names a signal that the catalogue does not have.",
        "fall: {signal: equity.drawdwn, window: 15m, at_least: 4.5%, on_unknown: hold}",
        "Correct the name. `ksctl schema signals` lists every signal with its unit and its meaning.",
    ),
    Page(
        "KS3002",
        "the signal needs a window",
        "The signal is a quantity over a stretch of time, and nothing says how long. No window is assumed: a fall of "
        "5% in an hour and one in a day are two different things.",
        "fall: {signal: equity.drawdown, at_least: 4.5%, on_unknown: hold}",
        'Add `window: 15m`, or in an expression write `equity.drawdown("15m")`.',
    ),
    Page(
        "KS3003",
        "the signal takes no window",
        "The signal is what it is at one moment, so a window would say nothing.",
        "small: {signal: equity.value, window: 15m, below: 1000 USDT, on_unknown: hold}",
        "Take the window out, or use a signal that is taken over a window.",
    ),
    Page(
        "KS3004",
        "the unit does not fit the signal",
        "A threshold is written with the unit of its signal: a fraction as `4.5%` or `0.045`, money as `10000 USDT`, a "
        "time as `30s`, a count or a ratio as a plain number. A plain number above 1 for a fraction that cannot "
        "exceed 100% is refused too: 4.5 would be 450%. So is a number below zero for a signal that never is: a fall "
        "of 9% is `9%`.",
        "fall: {signal: equity.drawdown, window: 15m, at_least: 30s, on_unknown: hold}",
        "Write the number with the unit that the message names.",
    ),
    Page(
        "KS3005",
        "a position's signal where a scope is watched",
        "Triggers and resets look at a whole scope (an account, a venue, the portfolio), and the signal is a "
        "quantity of "
        "one position of it: it is not said which.",
        "near: {when: 'position.liquidation_distance < 0.03', on_unknown: hold}",
        "Use the signal in `close.all_if`, which is asked of each position, or a signal of the scope here.",
    ),
    Page(
        "KS3006",
        "a scope's signal where positions are told apart",
        "`all_if` is asked of each position: where it holds, all of that position is closed. A signal of the scope "
        "is the same for all of them.",
        "close: {side: both, fraction: 50%, all_if: 'equity.drawdown(\"1h\") > 0.1'}",
        "Use a `position.` signal, or write a stage of its own for the scope's condition.",
    ),
    Page(
        "KS3007",
        "a text has no threshold",
        "The signal says a word, such as LONG, and a word is not more or less than anything.",
        "side: {signal: attribution.source, window: 15m, at_least: 1, on_unknown: warn}",
        "Write it as an expression: `when: 'attribution.source(\"15m\") == \"LONG\"'`.",
    ),
    Page(
        "KS3008",
        "money of one currency against accounts of another",
        "The threshold is money, and signals of money are in the account's own currency. The scope may hold accounts "
        "in another currency than the threshold's: then the comparison would mean nothing.",
        "scope: {each: account, match: {}}\n"
        "triggers:\n"
        "  small: {signal: equity.value, below: 1000 USDT, on_unknown: hold}",
        "Narrow the scope with `match: {currency: USDT}`, or compare a fraction.",
    ),
    Page(
        "KS3010",
        "there is no such trigger",
        "A stage names a trigger that its policy does not have. Triggers are not shared between policies.",
        "stages:\n  - {name: trim, level: 1, any: [fal-15m], …}",
        "Correct the name, or add the trigger under `triggers`.",
    ),
    Page(
        "KS3011",
        "there is no such ranking",
        "A `close` names a ranking that is neither built in (`default`, `killswitch-v6`) nor a "
        "Ranking document.",
        "close: {side: both, rank: by-size, fraction: 50%}",
        "Correct the name, or add a Ranking document of that name to the folder.",
    ),
    Page(
        "KS3012",
        "the policy's name is taken",
        "`operator` stands for people: a close by hand is recorded under this name.",
        "metadata: {name: operator}",
        "Give the policy another name.",
    ),
    Page(
        "KS3013",
        "a symbol in two correlation groups",
        "Groups give the order of closing, so a symbol can be in one of them only.",
        "kind: CorrelationGroup\nspec: {symbols: [BTC_USDT, ETH_USDT], order: 1}\n---\n"
        "kind: CorrelationGroup\nspec: {symbols: [ETH_USDT], order: 2}",
        "Keep the symbol in one group.",
    ),
    Page(
        "KS3014",
        "the ranking weighs nothing",
        "Every weight is zero, so every position has the same score, and the order of closing would be that of "
        "the alphabet.",
        "kind: Ranking\nspec: {formula: normalised, weights: {}, window: 15m}",
        "Give at least one term a weight, or leave `weights` out for the usual ones.",
    ),
    Page(
        "KS3015",
        "there is no such variant",
        "`spec.variant` selects one of the policy's `variants` by name, and none has this one. What would run is not "
        "guessed.",
        "variants: {tight: {…}}\nvariant: thight",
        "Correct the name, declare the variant, or leave `variant` out: then the triggers hold as they are written.",
    ),
    Page(
        "KS3016",
        "a variant changes what the trigger does not have",
        "A variant replaces the number of a threshold, its confirmation or its grace. It cannot turn `at_least` into "
        "another comparison, and an expression has no number apart.",
        "triggers: {fall: {signal: equity.drawdown, window: 15m, at_least: 4.5%, on_unknown: hold}}\n"
        "variants: {tight: {triggers: {fall: {above: 3%}}}}",
        "Use the comparison that the trigger has. A condition of another kind is another trigger, or another policy.",
    ),
    Page(
        "KS3017",
        "the window is too short for so many returns",
        "Component risk, or a volatility, asks for at least `least` returns, and a window of `window` holds at most "
        "window ÷ sample of them: it would be unknown for ever.",
        "kind: Ranking\nspec: {formula: component-risk, window: 15m, sample: 1m, least: 60, if_unknown: normalised}",
        "Lengthen the window, sample more often, or ask for fewer.",
    ),
    Page(
        "KS3018",
        "accounts of several currencies in one scope",
        "The policy watches a venue or the portfolio as one, and its accounts are in different currencies. Their "
        "equity cannot be added up without knowing what one currency is worth in the other, so every trigger on "
        "equity, exposure in money or leverage would stay unknown, and no limit would ever fire. USDT, USDC and USD "
        "are three currencies: that one is worth the other is what fails when it matters.",
        "scope: {each: portfolio, match: {}}  # one Account in USDT, another in USDC",
        "Add a reference currency: `reference: {currency: USD, rates_from: 2, within: 1%}` converts at the prices that "
        "the venues themselves give, if so many of them agree; `otherwise: {USDT: 1, USDC: 1}` declares what to take "
        "where they do not. Or narrow the scope with `match: {currency: USDT}`, or watch each account by itself.",
    ),
    Page(
        "KS3020",
        "two stages of one name",
        "Decisions, status and history name stages; two of one name could not be told apart.",
        "stages:\n  - {name: trim, level: 1, …}\n  - {name: trim, level: 2, …}",
        "Give each stage of a policy a name of its own.",
    ),
    Page(
        "KS3021",
        "the stage can never fire",
        "No values of the signals make this stage fire: it needs a trigger that can never hold, its triggers "
        "contradict each other, or a stage that is asked before it (a higher level, or the same level written earlier) "
        "fires whenever this one would.",
        "stages:\n  - {name: trim, level: 1, any: [fall], …}\n  - {name: close, level: 2, any: [fall], …}",
        "Give the stage a trigger that comes before those of the higher level, or take it out.",
    ),
    Page(
        "KS3022",
        "a higher level asks for no more than a lower one",
        "On the same signal and window the higher level's threshold is no stricter than the lower level's. "
        "Whenever the "
        "lower level would fire the higher one does, so the milder response never comes.",
        "triggers:\n"
        "  fall:      {signal: equity.drawdown, window: 15m, at_least: 7%, on_unknown: hold}   # level 1\n"
        "  fall-hard: {signal: equity.drawdown, window: 15m, at_least: 4.5%, on_unknown: hold} # level 2",
        "Exchange the thresholds or the levels.",
    ),
)  # fmt: skip

_EXPRESSIONS = (
    Page(
        "KS4001",
        "the expression cannot be read",
        "Expressions are CEL, the Common Expression Language. The message says where reading stopped. Often it "
        "is a habit of "
        "another language: `=` for `==`, `and` for `&&`, `4%` for `0.04`.",
        "when: 'equity.drawdown(\"15m\") >= 4%'",
        "Write comparisons with `< <= > >= == !=`, combine them with `&&`, `||` and `!`, and write percentages as "
        "fractions. For `a implies b` write `!(a) || b`.",
    ),
    Page(
        "KS4002",
        "the types do not fit",
        "A number is compared with a text, a condition is used as a number, or a text signal with a number.",
        "when: 'equity.value == \"LONG\"'",
        "Compare numbers with numbers, and text signals with texts. Whole numbers may be written without a point.",
    ),
    Page(
        "KS4003",
        "this is a value, not a condition",
        "A condition says yes, no or unknown; what is written gives a number or a text.",
        "when: 'equity.drawdown(\"15m\")'",
        "Compare it: `equity.drawdown(\"15m\") >= 0.045`.",
    ),
    Page(
        "KS4004",
        "this construct has no meaning here",
        "CEL can do more than a condition over signals needs. Where signals are intervals that may be unknown, "
        "only signals, "
        "numbers, texts, `&& || !`, comparisons, `+ - * /` and `in` with a list of texts have a meaning.",
        "when: 'equity.value > 1.0 ? true : false'",
        "Write it with these. `a ? b : c` over conditions is `(a && b) || (!(a) && c)`.",
    ),
    Page(
        "KS4005",
        "this is no window",
        "A windowed signal is called with one text: a number and its unit.",
        "when: 'equity.drawdown(15) >= 0.045'",
        'Write `equity.drawdown("15m")`; units are ms, s, m, h and d, also combined: "1h30m".',
    ),
    Page(
        "KS4006",
        "the expression is too large",
        "An expression has at most 10000 characters and 32 levels of nesting; sums of more than 31 terms nest, too.",
        "when: '((((((((((((((((((((((((((((((((( … )))))))))))))))))))))))))))))))))'",
        "Split it into several triggers and combine them in a stage, under `any` or `all`.",
    ),
    Page(
        "KS4007",
        "the expression mixes units",
        "Money is added to or compared with a fraction, or a time with a count: the result would depend on the "
        "size of the "
        "account or on the unit that a venue happens to use.",
        "when: 'equity.value > equity.drawdown(\"1h\")'",
        "Compare like with like; a part of something is a quotient: `exposure.net / equity.value > 2.0`.",
    ),
    Page(
        "KS4008",
        "the signal never says that",
        "A text signal says one of a few words, and this is none of them. UNKNOWN is none either: that a signal "
        "is unknown is "
        "not a value, and what it does is the trigger's `on_unknown`.",
        "when: 'attribution.source(\"15m\") == \"UNKNOWN\"'",
        "Use one of the words that the message lists.",
    ),
    Page(
        "KS4009",
        "the number is of no use",
        "A number too large to compute with, or a division by zero: the condition could never be anything but unknown.",
        "when: 'equity.value / 0 > 1'",
        "Correct the number.",
    ),
    Page(
        "KS4010",
        "a comment swallows the lines below it",
        "A comment in an expression reaches to the end of its line. YAML folds this text (`>`, or a text in "
        "quotes or without "
        "them that goes on over several lines) into one line, so what follows the comment is a comment, too.",
        "when: >\n  equity.drawdown(\"15m\") >= 0.1   // hard\n  || venue.age > 30",
        "Write the text as a literal block, `|`, which keeps its lines, or write the comment in YAML, with `#`, "
        "elsewhere.",
    ),
)  # fmt: skip

_WARNINGS = (
    Page(
        "KS5001",
        "no stage uses the trigger",
        "The trigger is evaluated, and nothing ever comes of it. Often a stage was meant to name it.",
        "triggers:\n  fall: {…}\n  spare: {…}\nstages:\n  - {name: trim, level: 1, any: [fall], …}",
        "Name it under `any` or `all` of a stage, or take it out.",
    ),
    Page(
        "KS5002",
        "the condition always holds",
        "Whatever its signals are, as long as they are known, this is true. A stage with it fires at once.",
        "fall: {signal: equity.drawdown, window: 15m, at_least: 0%, on_unknown: hold}",
        "Write what it should tell apart.",
    ),
    Page(
        "KS5003",
        "the condition can never hold",
        "Whatever its signals are, as long as they are known, this is false: a drawdown, for one, is never above 100%.",
        "fall: {signal: equity.drawdown, window: 15m, above: 100%, on_unknown: hold}",
        "Correct the threshold. `ksctl schema signals` says what each signal is.",
    ),
    Page(
        "KS5004",
        "only the confirmation makes the higher level stricter",
        "Two levels have the same threshold on the same signal and window, and the higher one must hold for "
        "longer. In a fast "
        "fall the milder response comes first and the harder one after the same loss, merely later.",
        "triggers:\n"
        "  fall:      {signal: equity.drawdown, window: 15m, at_least: 7%, confirm: 1m, on_unknown: hold} # level 1\n"
        "  fall-hard: {signal: equity.drawdown, window: 15m, at_least: 7%, confirm: 5m, on_unknown: hold} # level 2",
        "If that is meant, leave it. Otherwise give the higher level a threshold of its own.",
    ),
    Page(
        "KS5005",
        "confirmation in ticks",
        "Ticks are as long as the runner's interval: `3 ticks` are three seconds at one setting and fifteen minutes at "
        "another.",
        "fall: {signal: equity.drawdown, window: 15m, at_least: 4.5%, confirm: 3 ticks, on_unknown: hold}",
        "Write a time, such as `confirm: 2m`.",
    ),
    Page(
        "KS5006",
        "there is no such account",
        "The scope names an account for which there is no Account document beside the others.",
        "scope: {each: account, match: {account: binance-mian}}",
        "Correct the name, or add the Account.",
    ),
    Page(
        "KS5007",
        "`worst` never applies",
        "`worst` bounds what is closed when attribution falls back to `worst_ranked`. Here it never does: the "
        "action does not "
        "close the losing side, or the stage's attribution falls back to something else.",
        "close: {side: both, worst: 60%, fraction: 100%}",
        "Take it out, or bound the number of positions with `top`.",
    ),
    Page(
        "KS5008",
        "the stage fires only when another declines",
        "Whenever this stage's triggers hold, those of a stage that is asked before it hold, too. That one "
        "declines only if "
        "its prints are not corroborated, or if its closes select nothing of a book that is not empty.",
        "stages:\n"
        "  - {name: trim, level: 1, any: [fall], …}\n"
        "  - {name: close, level: 2, any: [fall], corroborate: true, …}",
        "If that is meant, leave it. Otherwise give the lower level a trigger that comes earlier.",
    ),
    Page(
        "KS5009",
        "two stages of one level",
        "A level fires once, and again only after its cooldown and on a new loss. Of two stages with the same level "
        "the one that fires first acts, and the other stays silent over the same fall, though its triggers hold.",
        "stages:\n"
        "  - {name: trim-hard, level: 1, any: [fall-10], …}\n"
        "  - {name: trim, level: 1, any: [fall-5], …}",
        "Give each stage a level of its own, the stricter one the higher. If they are meant as alternatives, leave it.",
    ),
    Page(
        "KS5010",
        "no policy watches the account",
        "The scope of no policy takes in this Account: by its name, market, venue and currency it matches none of "
        "them. It would be read at every tick, and nothing would ever be done about it, armed or not.",
        "kind: Policy\nspec: {scope: {each: account, match: {market: [swap]}}, …}\n---\n"
        "kind: Account\nmetadata: {name: savings}\nspec: {adapter: paper, market: spot, …}",
        "Widen the `scope.match` of a policy, add a policy for it, or take the Account out.",
    ),
    Page(
        "KS5011",
        "`share_cap` never applies",
        "No position is worth more than the gross of the book, so after closing a fraction none is worth more than the "
        "rest: half of it after `fraction: 50%`. A cap at or above that binds nowhere.",
        "close: {side: both, fraction: 50%, share_cap: 60%}",
        "Write a smaller cap, or take it out.",
    ),
    Page(
        "KS5012",
        "a variant changes nothing here",
        "The override says what the trigger says anyway, so that the variant is the policy itself in this point.",
        "triggers: {fall: {signal: equity.drawdown, window: 15m, at_least: 3%, on_unknown: hold}}\n"
        "variants: {tight: {triggers: {fall: {at_least: 3%}}}}",
        "Write what should differ, or take it out.",
    ),
    Page(
        "KS5013",
        "a spread of everything",
        "`spread: by_rank` says which positions a part of the gross is taken from. With `fraction: 100%` there is "
        "nothing left to choose.",
        "close: {side: both, rank: component-risk, spread: by_rank, fraction: 100%}",
        "Take `spread` out, or close less than everything.",
    ),
    Page(
        "KS5014",
        "a rate that can never be known",
        "The scope is measured in a reference currency, and an account of it is in another one. A rate wants "
        "`rates_from` venues that agree, each of them one voice; there are fewer, and `otherwise` declares none. Every "
        "trigger then stays unknown, and none fires.",
        "scope: {each: portfolio, match: {}}\nreference: {currency: USD}  # two Accounts in USDT, both at paper",
        "Declare what to take: `otherwise: {USDT: 1}`. Or ask for as many venues as there are with `rates_from`, or "
        "write the currency that the accounts are in, letter by letter: `usdt` is another one than `USDT`.",
    ),
    Page(
        "KS5015",
        "a reference currency that converts nothing",
        "With `each: account` an account is measured in its own currency. A rate under `otherwise` for the reference "
        "currency itself is always 1, and one for a currency that no account is in is never asked for.",
        "reference: {currency: USD, otherwise: {USD: 2}}",
        "Correct it, or take it out.",
    ),
    Page(
        "KS5016",
        "a key that changes nothing",
        "`when_unreachable` is about the close of its stage, and `on_suspicion: lock` about the `lock_trading` of some "
        "stage: without those, nothing waits and nothing is locked. Of `unexplained.tolerance`, at most 0.5% of equity "
        "in a minute counts as noise.",
        "unexplained: {tolerance: 100%}",
        "Take it out, or add what it is about.",
    ),
    Page(
        "KS5017",
        "a threshold that holds while nothing is unexplained",
        "`equity.unexplained` adds up what nothing explains: 0 on a quiet account, below zero for money that went, "
        "above it for money that came. The comparison holds at 0.",
        "gone: {signal: equity.unexplained, at_least: 0 USDT, on_unknown: hold}",
        "For money that went write `at_most: -10000 USDT`, for money that came `at_least: 10000 USDT`.",
    ),
)  # fmt: skip

PAGES: tuple[Page, ...] = (
    *_REFERENCES,
    *_EXPRESSIONS,
    *_WARNINGS,
    *OF_ROUTES,
    *OF_UNWINDINGS,
    *OF_TIMERS,
    *OF_ACCOUNTS,
)
