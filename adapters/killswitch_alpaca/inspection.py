"""Traits and capabilities of Alpaca, and the inspection of an account.

The trading API allows an account 200 requests a minute (some accounts have more). A snapshot reads positions each time
and the rest of the account more rarely; see `snapshot_reader`. It costs 1.4 requests on average, so limits are counted
in fifths of a request. A twentieth of the limit is reserved for what is read for the first time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from killswitch.model.inspection import Capability, Inspection, KeyRights
from killswitch.model.parsing import Row, UnreadableError, object_at
from killswitch.model.venue import Cost, RateLimit, VenueDescription, VenueError
from killswitch_alpaca.client import Client
from killswitch_alpaca.instruments import bar_reason
from killswitch_alpaca.queries import Queries
from killswitch_alpaca.settings import AlpacaSettings

COUNTED: Final = "fifths of requests"
FIFTHS: Final = 5
"""Units of one request."""
SNAPSHOT: Final = 7
"""Units of one snapshot."""


def traits_for(requests_per_minute: int) -> VenueDescription:
    """The traits of an account with this allowance.

    There is no batch. `whole_book` is off: `DELETE /v2/positions` gives its orders names of Alpaca's own, so that their
    status cannot be queried by ours; it fails for shares that a resting order holds, or cancels every order of the
    account, which is more than was decided; and outside hours it queues what the policy may want refused.
    """
    limit = RateLimit(COUNTED, FIFTHS * requests_per_minute * 19 // 20, 60.0)
    return VenueDescription(
        limits=(limit,),
        costs=(
            Cost("snapshot", limit.name, units=SNAPSHOT),
            Cost("submit", limit.name, each=FIFTHS),
            Cost("find_order", limit.name, units=FIFTHS),
            Cost("open_orders", limit.name, units=FIFTHS),
            Cost("fills", limit.name, units=2 * FIFTHS),
            Cost("cancel", limit.name, units=FIFTHS),
        ),
        enforces_reduce_only=False,
    )


CAPABILITIES: Final = (
    Capability("equity", "yes"),
    Capability("positions", "yes", "shares, ETFs and coins; options: listed, closed in whole contracts, untested"),
    Capability("orders", "yes"),
    Capability("trigger orders", "yes", "stops, trailing stops and the legs of brackets are in the list of orders"),
    Capability("fills", "yes", "without fees: those come later, as activities of their own"),
    Capability("flows", "yes", "most have a date and no time, and are dated with when they were first seen"),
    Capability("prices", "partly", "the last price of what is held; bid and ask only in the extended session"),
    Capability("market orders", "yes", "stocks: in the regular session; outside it as `outside_hours` configures"),
    Capability("limit orders", "yes", "fractional shares: for the day; in the extended session: for the day only"),
    Capability("reduce only", "partly", "shares: position_intent refuses to open; coins cannot be sold short"),
    Capability("put back stops", "partly", "shares: yes; coins: only stops with a limit price"),
    Capability("batch orders", "no"),
    Capability("close book", "no", "its orders would not carry our client order ids"),
    Capability("position mode", "yes", "one way, always"),
    Capability("find by client id", "yes"),
    Capability("dead man", "no"),
    Capability("push", "yes", "trade_updates: orders and fills; prices and cash are not pushed"),
    Capability("key rights", "no", "Alpaca does not report what a key may do"),
    Capability("clock", "yes"),
    Capability("bars", "partly", "coins: no keys; stocks: keys in APCA_API_KEY_ID, APCA_API_SECRET_KEY"),
    Capability("sandbox", "yes", "paper accounts, with keys of their own"),
    Capability("demo", "no"),
)  # fmt: skip


RIGHTS: Final = (
    "Alpaca has one kind of key, which reads and trades, and reports no rights. It cannot move dollars; where coin "
    "transfers are enabled for the account, it can send coins to addresses that were approved on the website"
)


async def inspect(client: Client, settings: AlpacaSettings) -> Inspection:
    """Inspect the account. Raises VenueError where Alpaca cannot be reached or refuses the keys; other failures are
    notes."""
    notes: list[str] = []
    account = object_at(await client.get("/v2/account"), what="the account")
    bars = bar_reason(account)
    if bars is not None:
        notes.append(f"orders are not accepted: {bars}")
    elif account.get("status") not in (None, "ACTIVE"):
        notes.append(f"the account's status is {account['status']}")
    if account.get("currency") not in (None, settings.spec.currency):
        notes.append(f"the account's currency is {account['currency']}; the document declares {settings.spec.currency}")
    skew = await _noted(notes, "the clock", lambda: _skew(client, settings, notes))
    configured = await _noted(notes, "the configuration", lambda: _configuration(client))
    if isinstance(configured, dict):
        if configured.get("suspend_trade") is True and bars is None:
            notes.append("trading is suspended in the account's configuration (suspend_trade): orders are not accepted")
        if configured.get("no_shorting") is True:
            notes.append("no_shorting is set: shorts cannot be opened; closing one is still possible")
    notes.append(f"outside market hours a close of stocks is {_outside(settings)}")
    return Inspection(
        status="ok" if bars is None else str(account.get("status") or "blocked").lower(),
        clock_skew_ms=skew if isinstance(skew, float) else None,
        rights=KeyRights(read=True, trade=None if bars is None else False, note=RIGHTS),
        position_mode="one_way",
        margin_mode=None,
        capabilities=CAPABILITIES,
        notes=tuple(notes),
    )


async def _noted(notes: list[str], what: str, fetch: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await fetch()
    except (VenueError, UnreadableError) as error:
        notes.append(f"{what} could not be read: {error}")
    return None


async def _skew(client: Client, settings: AlpacaSettings, notes: list[str]) -> float:
    clock = await Queries(settings, client).clock()
    notes.append(
        f"the stock market is open until {clock.next_close:%Y-%m-%d %H:%M} UTC"
        if clock.is_open
        else f"the stock market is closed until {clock.next_open:%Y-%m-%d %H:%M} UTC"
    )
    return clock.skew.total_seconds() * 1000


async def _configuration(client: Client) -> Row:
    return object_at(await client.get("/v2/account/configurations"), what="the configuration")


def _outside(settings: AlpacaSettings) -> str:
    match settings.spec.outside_hours:
        case "queue":
            return "sent as a market order that Alpaca holds until the market opens (outside_hours: queue)"
        case "extended":
            return (
                f"sent into the extended session with a limit within {settings.extended_band:%} of the quote, and "
                "refused when that session is over (outside_hours: extended)"
            )
    return "refused until the market opens, and sent then (outside_hours is not set)"
