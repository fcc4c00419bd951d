"""Pages of the diagnostic codes of unwindings."""

from __future__ import annotations

from killswitch.policy.diagnostics.problem import Page

OF_SCHEMA: tuple[Page, ...] = (
    Page(
        "KS2220",
        "a bound without a ladder",
        "`slippage` says how far from the mark an order may fill. Keeping that bound takes orders with a limit, and an "
        "order with a limit may not fill at all: what is then sent is for you to say.",
        "spec: {slippage: [{at_most: 2%}]}",
        "Add a `ladder` that begins with `limit_ioc` and ends with an exit, or take `slippage` out.",
    ),
    Page(
        "KS2221",
        "a ladder without an exit",
        "When the market runs away, orders within a bound stop filling, and a ladder that ends with one leaves the "
        "position open just when it matters most. An exit must always exist: a market order, or a resting limit where "
        "the venue takes no market orders. That a bound was not kept is then said in the report.",
        "ladder:\n  - {order: limit_ioc, widen: 1, tries: 2}\n  - {order: limit_ioc, widen: 2, tries: 2}",
        "Add `- {order: market, tries: 2}` at the end, and after it `- {order: limit, widen: 3}` for markets that take "
        "no market orders.",
    ),
    Page(
        "KS2222",
        "a rung that narrows",
        "Each rung is tried because the one before did not fill. One that asks for a better price than that cannot do "
        "better; it only costs time. A resting `limit` may follow `market`: it is for markets that take no market "
        "orders.",
        "ladder:\n  - {order: limit_ioc, widen: 2}\n  - {order: limit_ioc, widen: 1}\n  - {order: market}",
        "Write the rungs from the narrowest to the widest.",
    ),
    Page(
        "KS2223",
        "a hedge that acts without a bound",
        "With `mode: act` the program opens a position, which is new risk. However it was sized, the most that one "
        "hedge may be worth has to be written down by a person.",
        "hedge: {mode: act, with: [{account: other, symbol: BTC_USDT}]}",
        "Add `max_notional: 50000 USDT`, with your own number, or write `mode: suggest`.",
    ),
    Page(
        "KS2224",
        "a class of symbols that is two",
        "An item of `slippage` is for the symbols that it lists, for those of a CorrelationGroup, or for all; not for "
        "two of these at once.",
        "slippage: [{symbols: [BTC], group: smart-contracts, at_most: 1%}]",
        "Give each an item of its own.",
    ),
    Page(
        "KS2225",
        "`ladder_only` without a ladder",
        "`if_unknown: ladder_only` accepts that a slice cannot be sized because a ladder bounds its price all the "
        "same. Without a ladder nothing does.",
        "impact: {model: square_root, at_most: 0.5%, if_unknown: ladder_only}",
        "Add `slippage` and a `ladder`, or write `if_unknown: whole`.",
    ),
    Page(
        "KS2226",
        "a market order with a limit",
        "`widen` is the limit of an order in times of the symbol's bound. A market order has none.",
        "ladder: [{order: market, widen: 2}]",
        "Take `widen` out, or write `order: limit_ioc`.",
    ),
)

OF_GRAPH: tuple[Page, ...] = (
    Page(
        "KS3030",
        "there is no such unwinding",
        "A `close` names an Unwinding for which there is no document. How it is carried out is not guessed.",
        "close: {side: both, fraction: 100%, unwinding: carefull}",
        "Correct the name, add the Unwinding, or leave the key out: then the one called `default` carries the close "
        "out where there is one, and market orders as fast as the venue allows where there is none.",
    ),
    Page(
        "KS3031",
        "two unwindings for one reason",
        "A close by hand is carried out by the Unwinding that claims its reason. Two claim the same one, and which of "
        "them is meant is not guessed in an emergency.",
        "kind: Unwinding\nmetadata: {name: fast}\nspec: {reasons: [market]}\n---\n"
        "kind: Unwinding\nmetadata: {name: careful}\nspec: {reasons: [market, drill], …}",
        "Keep the reason in one of them.",
    ),
    Page(
        "KS3032",
        "there is no such group",
        "An item of `slippage` names a CorrelationGroup for which there is no document, so its bound would hold for "
        "nothing.",
        "slippage: [{group: smart-contract, at_most: 3%}]",
        "Correct the name, add the CorrelationGroup, or list the `symbols`.",
    ),
    Page(
        "KS3033",
        "there is no account to hedge on",
        "A hedge is to be opened on an account for which there is no Account document beside the others: it can "
        "neither be read nor traded on, and that would show only when it is needed.",
        "hedge: {mode: suggest, with: [{account: othre, symbol: BTC_USDT}]}",
        "Correct the name, or add the Account.",
    ),
    Page(
        "KS3034",
        "a limit below nothing",
        "The widest limit of the ladder, in times of this bound, is the whole price or more: a sell order would be "
        "limited at zero or below, which no venue takes.",
        "slippage: [{at_most: 40%}]\nladder: [{order: limit_ioc, widen: 3}, {order: market}]",
        "Lower the bound or `widen`. What is to go at any price is a `market` rung.",
    ),
    Page(
        "KS3035",
        "a hedge bounded in another currency",
        "What a hedge is worth is reckoned in the currency of the account that it is opened on. A bound in another one "
        "would have to be converted at a rate that nobody has declared.",
        "hedge: {mode: act, with: [{account: other, symbol: BTC_USDC}], max_notional: 50000 USDT}\n---\n"
        "kind: Account\nmetadata: {name: other}\nspec: {currency: USDC, …}",
        "Write the bound in the account's currency. Accounts of two currencies need two unwindings.",
    ),
    Page(
        "KS5030",
        "the account to hedge on is not described here",
        "A hedge names an account, and this set has no Account documents at all. That is so where policies are only "
        "replayed; a runner needs the account.",
        "hedge: {mode: suggest, with: [{account: other, symbol: BTC_USDT}]}     # and no Account in the folder",
        "Add the Account documents, or take the hedge out of a set that is for replays only.",
    ),
    Page(
        "KS5031",
        "nothing uses the unwinding",
        "No `close` of any policy names it, no reason of a close by hand is claimed by it, and it is not called "
        "`default`. Often a close was meant to name it.",
        "kind: Unwinding\nmetadata: {name: careful}\nspec: {max_orders_per_minute: 60}     # and no close names it",
        "Name it in a close with `unwinding: careful`, claim a reason, call it `default`, or take it out.",
    ),
    Page(
        "KS5032",
        "a bound that never holds",
        "The first item of `slippage` that covers a symbol holds, and all that this one covers is covered before.",
        "slippage:\n  - {at_most: 2%}\n  - {symbols: [BTC_USDT], at_most: 0.5%}",
        "Write the narrower classes first, and the one for all symbols last.",
    ),
    Page(
        "KS5033",
        "limits without a bound",
        "The limit of a rung is so many times the symbol's bound, and no `slippage` says what that is. Such an order "
        "is limited at the best price of the other side, wherever that is.",
        "spec:\n  ladder: [{order: limit_ioc}, {order: market}]     # and no slippage",
        "Add `slippage: [{at_most: 2%}]` with your own bounds, or take the ladder out.",
    ),
    Page(
        "KS5034",
        "no order that leaves at any price",
        "The ladder ends with a resting limit and has no market order. If the price moves beyond the limit the "
        "position stays open, and the order waits for it to come back.",
        "ladder: [{order: limit_ioc, tries: 3}, {order: limit, widen: 3}]",
        "Add `{order: market, tries: 2}` before the last rung. If no market of yours takes market orders, leave it.",
    ),
)
