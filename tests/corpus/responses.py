"""Mistakes in what a stage does: its actions, locks, closes, and attribution."""

from __future__ import annotations

from tests.corpus.mutant import Edit, breaker, mutant, stage
from tests.corpus.stages import PUBLISHED
from tests.corpus.triggers import BLEED, CAPITAL, CIRCUIT, DEGROSS, FREQTRADE, FUTURES, SIX, VENUE

SPOT, CONCENTRATED, BY_RISK = "spot-drawdown", "futures-concentrated", "futures-component-risk"
ENTRIES = "        - cancel_orders: {kind: entry}\n"
EVERYTHING = "        - close: {side: both, fraction: 100%, unwinding: circuit-breaker}\n"

SLICED = Edit(
    "",
    "apiVersion: killswitch.dev/v1\nkind: Unwinding\nmetadata: {name: sliced}\nspec: {max_orders_per_minute: 60}\n",
    file="unwinding.yaml",
)
WITHOUT_SCENARIOS = Edit("#", "", at="#", until="", file="scenarios.yaml")

ACTIONS = (
    mutant("action", FUTURES, "lock-removed", "`trim-top-risk` locks nothing",
           stage("trim-top-risk", "        - lock_trading: {mode: reduce_only, for: 30m}\n", ""),
           loosens=True, against="LOOSENING", codes="KS7201", scenarios="fails"),
    mutant("action", FUTURES, "entries-left", "`close-losing-side` cancels no entries",
           stage("close-losing-side", ENTRIES, ""), loosens=True, against="LOOSENING", codes="KS7202"),
    mutant("action", CIRCUIT, "close-removed", "`trip` closes nothing", stage("trip", EVERYTHING, ""),
           loosens=True, against="LOOSENING", codes="KS5031", scenarios="fails"),
    mutant("action", FUTURES, "stops-left", "`close-everything` leaves protective orders",
           stage("close-everything", "        - cancel_orders: {kind: all}\n", ""),
           loosens=True, against="LOOSENING"),
    mutant("action", FUTURES, "last-level-only-notifies", "`close-everything`: `actions: []`",
           Edit("      actions:\n", "      actions: []\n", at="name: close-everything", until="      notify:"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("action", CAPITAL, "runner-stays", "`exit_process` removed", Edit("      - exit_process: {}\n", ""),
           loosens=True, against="LOOSENING"),
    mutant("action", FUTURES, "no-corroboration", "`close-everything` acts on any price",
           stage("close-everything", "      corroborate: true\n", ""), loosens=False, against="TIGHTENING"),
    mutant("action", FUTURES, "corroboration-added", "`trim-top-risk` waits for corroborated prices",
           stage("trim-top-risk", "      actions:", "      corroborate: true\n      actions:"),
           loosens=True, against="LOOSENING"),
    mutant("action", VENUE, "close-within-seconds", "`close_within`: 6h → 6s", Edit("6h}", "6s}"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("action", PUBLISHED, "breach-only-paged", "`bleed-l0`: on_breach close → page",
           Edit("on_breach: close\n      breach: {ceiling: 5%, cost_per_hour: 1%}", "on_breach: page", at="bleed-l0"),
           loosens=True, against="LOOSENING"),
    mutant("action", PUBLISHED, "breach-at-half-the-equity", "`bleed-l0`: ceiling 5% → 50%",
           Edit("ceiling: 5%", "ceiling: 50%", at="bleed-l0"), loosens=True, against="LOOSENING"),
)  # fmt: skip

LOCKS = (
    mutant("lock", FUTURES, "lock-in-seconds", "`trim-top-risk`: lock for 30m → 30s",
           stage("trim-top-risk", "for: 30m}", "for: 30s}"), loosens=True, against="LOOSENING"),
    mutant("lock", FUTURES, "last-lock-ends", "`close-everything`: lock without end → for 30m",
           stage("close-everything", "{mode: reduce_only}", "{mode: reduce_only, for: 30m}"),
           loosens=True, against="LOOSENING"),
    mutant("lock", CIRCUIT, "lock-of-one-symbol", "`trip` locks ETH only",
           stage("trip", "{mode: reduce_only}", '{mode: reduce_only, symbols: ["ETH/USDT:USDT"]}'),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("lock", CIRCUIT, "lock-weaker", "`trip`: lock of everything → reduce_only",
           stage("trip", "{mode: all}", "{mode: reduce_only}"), loosens=True, against="LOOSENING",
           given=[stage("trip", "{mode: reduce_only}", "{mode: all}"), WITHOUT_SCENARIOS]),
    mutant("lock", FREQTRADE, "guard-locks-nothing", "`stoploss-guard`: `actions: []`",
           Edit("[lock_trading: {mode: reduce_only, for: 4h}]", "[]"),
           loosens=True, against="LOOSENING", scenarios="fails"),
)  # fmt: skip

CLOSES = (
    mutant("close", DEGROSS, "a-twentieth", "`cut-half`: 50% → 5%", stage("cut-half", "50%", "5%"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("close", DEGROSS, "higher-level-closes-less", "`cut-most`: 80% → 8%", stage("cut-most", "80%", "8%"),
           loosens=True, against="LOOSENING", codes="KS7217", scenarios="fails"),
    mutant("close", CONCENTRATED, "a-twentieth-beside-a-cap", "`cut-and-cap`: 50% → 5%",
           stage("cut-and-cap", "fraction: 50%", "fraction: 5%"), loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("close", CONCENTRATED, "cap-without-effect", "`cut-and-cap`: share_cap 12.5% → 62.5%",
           stage("cut-and-cap", "12.5%", "62.5%"), loosens=True, against="NEITHER", codes="KS5011",
           scenarios="fails"),
    mutant("close", BY_RISK, "less-by-risk", "`cut-by-risk`: 50% → 5%",
           stage("cut-by-risk", "fraction: 50%", "fraction: 5%"),
           # With `by_rank` a smaller fraction of the gross may close more of a single position.
           loosens=True, against="NEITHER", scenarios="fails"),
    mutant("close", BY_RISK, "each-instead-of-by-rank", "`cut-by-risk`: `spread: by_rank` removed",
           stage("cut-by-risk", "spread: by_rank, ", ""), loosens=True, against="NEITHER", scenarios="fails"),
    mutant("close", BY_RISK, "another-ranking", "`cut-by-risk`: component-risk → default",
           stage("cut-by-risk", "rank: component-risk", "rank: default"), loosens=True, against="NEITHER"),
    mutant("close", DEGROSS, "more-than-everything", "`cut-half`: 50% → 500%", stage("cut-half", "50%", "500%"),
           loosens=False, against=None, codes="KS2102"),
    mutant("close", FUTURES, "longs-only", "`close-everything`: both → long",
           stage("close-everything", "side: both", "side: long"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("close", FUTURES, "both-for-losing", "`close-losing-side`: losing → both",
           stage("close-losing-side", "side: losing", "side: both"),
           loosens=False, against="TIGHTENING", codes="KS5007", scenarios="fails"),
    mutant("close", CIRCUIT, "losing-without-attribution", "`trip`: both → losing",
           stage("trip", "side: both", "side: losing"), loosens=True, against=None, codes="KS2205"),
    mutant("close", FUTURES, "only-the-worst", "`trim-top-risk`: top 3 → 1", stage("trim-top-risk", "top: 3", "top: 1"),
           loosens=True, against="LOOSENING"),
    mutant("close", FUTURES, "liquidation-distance-in-percent", "`all_if` at 0.03 → 3.0",
           stage("trim-top-risk", "<= 0.03", "<= 3.0"), loosens=False, against="TIGHTENING", codes="KS5064"),
    mutant("close", SPOT, "listed-coin-forgotten", "`sell-listed` without SOL", stage("sell-listed", ", SOL", ""),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("close", SPOT, "another-coin-forgotten", "`sell-listed` without DOGE", stage("sell-listed", ", DOGE", ""),
           loosens=True, against="LOOSENING"),
    mutant("close", SPOT, "bitcoin-is-stable", "`sell-all-but-stable` keeps BTC",
           stage("sell-all-but-stable", "[USDT,", "[BTC, USDT,"),
           loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("close", SPOT, "stable-coin-sold", "`sell-all-but-stable` sells DAI",
           stage("sell-all-but-stable", "DAI, ", ""), loosens=False, against="TIGHTENING"),
    mutant("close", PUBLISHED, "one-a-day", "`bleed-l3`: daily_cap 12 → 1",
           Edit("daily_cap: 12", "daily_cap: 1", at="bleed-l3"), loosens=True, against="LOOSENING", scenarios="fails"),
    mutant("close", PUBLISHED, "ranked-by-something-else", "the ranking `bleed-rate` weighs the loss",
           Edit("weights: {bleed_rate: 1}", "weights: {loss: 1}"), loosens=True, against="NEITHER"),
    mutant("close", CIRCUIT, "one-order-a-minute", "`trip` by an unwinding of 60 orders a minute → 1",
           Edit("max_orders_per_minute: 60", "max_orders_per_minute: 1", file="unwinding.yaml"),
           given=[SLICED, stage("trip", "unwinding: circuit-breaker", "unwinding: sliced")],
           # What is done later is done less; and in another market the slower way may close at better prices.
           loosens=True, against="NEITHER"),
    mutant("close", BLEED, "half-of-the-bleed", "`close-bleed`: 100% → 50%", stage("close-bleed", "100%", "50%"),
           loosens=True, against="LOOSENING", scenarios="fails"),
)  # fmt: skip

ATTRIBUTIONS = (
    mutant("attribution", FUTURES, "percent-of-percent", "`trim-top-risk`: source_at_least 65% → 6.5%",
           stage("trim-top-risk", "65%", "6.5%"), loosens=True, against=None, codes="KS2102"),
    mutant("attribution", FUTURES, "a-stronger-majority", "`close-losing-side`: source_at_least 60% → 95%",
           stage("close-losing-side", "60%, if_mixed", "95%, if_mixed"), loosens=True, against="NEITHER"),
    mutant("attribution", FUTURES, "mixed-closes-nothing", "`close-losing-side`: if_mixed worst_ranked → none",
           stage("close-losing-side", "if_mixed: worst_ranked", "if_mixed: none"), loosens=True, against="NEITHER"),
    mutant("attribution", SIX, "attribution-missing", "`position-loss`: `attribution` removed",
           breaker("position-loss", "    attribution: {source_at_least: 65%, if_mixed: worst_ranked, "
                   "if_unknown: worst_ranked}\n", ""), loosens=True, against=None, codes="KS2205"),
)  # fmt: skip

IN_RESPONSES = (*ACTIONS, *LOCKS, *CLOSES, *ATTRIBUTIONS)
