"""Flows from Bybit's transaction log, and a reader that fetches it in portions.

A row is a `transfer` where money leaves or enters the account's equity without a profit or a loss, a profit or loss
where there is one, and no flow where the equity stays the same or fills state the change. A loan inside the account
is no flow: `equity` excludes `spotBorrow`, so the loan changes the wallet only. Other loans are not subtracted from
the equity: their principal is a transfer, and their cost is interest.

The log has a row for every fill. Each span of it is fetched page by page, and the cursor of the next page is kept, so
that the order of the rows does not matter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from killswitch.model.parsing import EndlessListError, Row, UnreadableError, every_page, required_text
from killswitch.model.snapshot import Flow, FlowKind
from killswitch.model.venue import VenueDownError
from killswitch_ccxt.fills import ledger_flow
from killswitch_ccxt.parts import OVERLAP

_NONE: Final = (
    # Stated by fills
    "TRADE", "DELIVERY", "LIQUIDATION", "PART_LIQUIDATION", "ADL", "CLOSEPNL", "POSITION_TAKE_OVER",
    # Conversions between coins of the account
    "CURRENCY_BUY", "CURRENCY_SELL", "CURRENCY_BUY_MANUEL", "CURRENCY_SELL_MANUEL", "OTC_TRADE",
    "SPOT_REPAYMENT_SELL", "SPOT_REPAYMENT_BUY", "AUTO_SOLD_COLLATERAL_INS_LOAN", "AUTO_BUY_LIABILITY_INS_LOAN",
    "INSTITUTION_EXCHANGE_SELL", "INSTITUTION_EXCHANGE_BUY",
    "PREMARKET_DELIVERY_SELL_NEW_COIN", "PREMARKET_DELIVERY_BUY_NEW_COIN",
    "CONVERT",
    # Wallet and debt change together
    "BORROW", "REPAY", "MANUAL_LOANS_BORROW", "MANUAL_LOANS_REPAY", "AUTO_LOANS_BORROW", "AUTO_LOANS_REPAY",
    "FLOATING_TO_FIXED_BORROW", "FLOATING_TO_FIXED_REPAY",
)  # fmt: skip
_TRANSFERS: Final = (
    "TRANSFER_IN", "TRANSFER_OUT", "BONUS_TRANSFER_IN", "BONUS_TRANSFER_OUT", "PEF_TRANSFER_IN", "PEF_TRANSFER_OUT",
    # Loans that are not in the equity
    "TRANSFER_IN_INS_LOAN", "TRANSFER_OUT_INS_LOAN", "BORROWED_AMOUNT_INS_LOAN", "PRINCIPLE_REPAYMENT_INS_LOAN",
    "AUTO_PRINCIPLE_REPAYMENT_INS_LOAN", "INSTITUTION_LOAN_IN", "INSTITUTION_PAYBACK_PRINCIPAL_OUT",
    "INSTITUTION_LIQ_PRINCIPAL_OUT", "INSTITUTION_LOAN_TRANSFER_IN", "INSTITUTION_LOAN_TRANSFER_OUT",
    "INSTITUTION_LOAN_WITHOUT_WITHDRAW", "INSTITUTION_LOAN_RESERVE_IN", "INSTITUTION_LOAN_RESERVE_OUT",
    "LOANS_BORROW_FUNDS", "LOANS_PLEDGE_ASSET", "PLATFORM_TOKEN_MNT_LIQRECALLEDMMNT",
    "PLATFORM_TOKEN_MNT_LIQRETURNEDMNT",
    # Products that money is put into and taken out of
    "FLEXIBLE_STAKING_SUBSCRIPTION", "FLEXIBLE_STAKING_REDEMPTION", "FLEXIBLE_STAKING_REFUND",
    "FIXED_STAKING_SUBSCRIPTION", "FIXED_STAKING_REFUND", "TOKENS_SUBSCRIPTION", "TOKENS_REDEMPTION",
    "ONCHAINEARN_SUBSCRIPTION", "ONCHAINEARN_REDEMPTION", "ONCHAINEARN_REFUND", "STRUCTURE_PRODUCT_SUBSCRIPTION",
    "STRUCTURE_PRODUCT_REFUND", "CLASSIC_WEALTH_MANAGEMENT_SUBSCRIPTION", "PREMIMUM_WEALTH_MANAGEMENT_SUBSCRIPTION",
    "PREMIMUM_WEALTH_MANAGEMENT_REFUND", "LIQUIDITY_MINING_SUBSCRIPTION", "LIQUIDITY_MINING_REFUND",
    "PWM_SUBSCRIPTION", "PWM_REFUND", "DEFI_INVESTMENT_SUBSCRIPTION", "DEFI_INVESTMENT_REFUND",
    "DEFI_INVESTMENT_REDEMPTION",
    # Pledges and custody: out of the account, and back
    "PREMARKET_TRANSFER_OUT", "PREMARKET_DELIVERY_PLEDGE_BACK", "PREMARKET_ROLLBACK_PLEDGE_BACK",
    "CUSTODY_LOCK", "CUSTODY_UNLOCK", "CUSTODY_UNLOCK_REFUND", "CUSTODY_CASH_RECOVER_TR",
    "DBS_CASH_IN", "DBS_CASH_OUT", "DBS_CASH_IN_TR", "DBS_CASH_OUT_TR",
)  # fmt: skip
_INTEREST: Final = (
    "INTEREST", "FIXED_INTEREST", "FIXED_INTEREST_REFUND", "INTEREST_REPAYMENT_INS_LOAN",
    "AUTO_INTEREST_REPAYMENT_INS_LOAN", "INSTITUTION_PAYBACK_INTEREST_OUT", "INSTITUTION_LIQ_INTEREST_OUT",
)  # fmt: skip
FLOWS: Final[Mapping[str, FlowKind | None]] = {
    **dict.fromkeys(_NONE),
    **dict.fromkeys(_TRANSFERS, "transfer"),
    **dict.fromkeys(_INTEREST, "interest"),
    **dict.fromkeys(("FEE_REFUND", "BONUS", "AIRDROP", "BONUS_RECOLLECT"), "rebate"),
    **dict.fromkeys(
        ("AUTO_DEDUCTION", "CUSTODY_NETWORK_FEE", "CUSTODY_SETTLE_FEE", "SPREAD_FEE_OUT", "BROKER_ABACCOUNT_FEE"), "fee"
    ),
    "SETTLEMENT": "funding",
    "INSURANCE_FUND": "insurance",
    "DEPOSIT": "deposit",
    "WITHDRAW": "withdrawal",
}
"""Type in the transaction log → kind of flow; None where it is none."""


def flow_of(row: Row) -> Flow | None:
    """A row of the transaction log as a flow; None where it is none.

    `funding` is positive for an amount received; `change` is the whole change of the wallet.
    """
    what = f"row {row.get('id')} of the transaction log"
    kind = required_text(row.get("type"), what)
    return ledger_flow(
        kind, FLOWS, what, number=row.get("id"), at=row.get("transactionTime"), currency=row.get("currency"),
        amount=row.get("funding" if FLOWS.get(kind) == "funding" else "change"),
    )  # fmt: skip


MOST_PAGES: Final = 40
"""Most pages of one fetch; the log's own limit allows 30 of them in a second."""
ROWS: Final = 50
"""Rows of a page: the most that the venue returns."""
WEEK: Final = 7 * 86_400_000
"""Longest span of one request, in milliseconds. Without an end the venue would return one day."""
CLOCK_TOLERANCE: Final = 60_000
"""Milliseconds after our time up to which rows are requested: the venue's clock may be ahead."""

Page = tuple[Sequence[Mapping[str, Any]], str | None]
"""Rows, and the cursor of the next page; None after the last one."""


class _Span(Struct, frozen=True):
    """Rows from `begin` to `end`, in ms; `cursor`: of the next page, None before the first one."""

    begin: int
    end: int
    cursor: str | None = None


class LogReader:
    """Reads one account's log."""

    def __init__(self, page: Callable[[dict[str, Any]], Awaitable[Page]]) -> None:
        self._page = page
        self._remaining: list[_Span] = []
        self._until = 0
        """Time, in ms, up to which everything is read or in a span that is left."""
        self._found: dict[str, Flow] = {}

    async def flows(self, since: int, now: int) -> tuple[Flow, ...]:
        """Flows since then, and those of earlier requests that were not read to the end. Times in ms.

        UnreadableError where rows are left for the next fetch, which continues from there.
        """
        self._extend_spans(since, now)
        first = self._remaining[0]
        try:
            await every_page(self._read_page, first, MOST_PAGES, "the transaction log")
        except EndlessListError as error:
            raise UnreadableError(
                f"the transaction log has more than {MOST_PAGES * ROWS:,} rows that are not read yet (each fill is "
                "one): the next fetch continues where this one ended"
            ) from error
        except VenueDownError:
            if self._remaining[0] is first:  # perhaps the venue no longer accepts its cursor: the span is read again
                self._remaining[0] = replace(first, cursor=None)
            raise
        return tuple(self._found.values())

    def _extend_spans(self, since: int, now: int) -> None:
        if not self._remaining:
            self._found, begin = {}, since
        elif self._remaining[-1].cursor is None:
            begin = self._remaining.pop().begin  # not read yet, so it can be extended
        else:
            begin = self._until - OVERLAP
        self._remaining += [_Span(it, min(it + WEEK, now + CLOCK_TOLERANCE)) for it in range(begin, now + 1, WEEK)]
        self._until = now

    async def _read_page(self, span: _Span) -> tuple[Sequence[Row], _Span | None]:
        """Read the next page of the first span that is left, and return what is left first after that."""
        params = {"accountType": "UNIFIED", "startTime": span.begin, "endTime": span.end, "limit": ROWS}
        rows, cursor = await self._page({**params, **({"cursor": span.cursor} if span.cursor else {})})
        self._found |= {flow.id: flow for flow in map(flow_of, rows) if flow is not None}
        self._remaining[:1] = [] if cursor is None else [replace(span, cursor=cursor)]
        return rows, self._remaining[0] if self._remaining else None
