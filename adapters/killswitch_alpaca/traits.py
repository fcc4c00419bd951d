"""What Alpaca is like, as far as acting has to know: its limit, what each call takes of it, and what there is not.

The trading API takes 200 requests a minute of an account (some accounts have more). A snapshot is positions each time
and the rest of the account more rarely; see `reading`. It takes 1.4 requests on average, so limits are counted in
fifths of a request. A twentieth of the limit is left to what is read for the first time.
"""

from __future__ import annotations

from typing import Final

from killswitch.model.inspection import Capability
from killswitch.model.venue import Cost, RateLimit, VenueTraits

COUNTED: Final = "fifths of requests"
FIFTHS: Final = 5
"""Units of one request."""
SNAPSHOT: Final = 7
"""Units of one snapshot."""


def traits_for(requests_per_minute: int) -> VenueTraits:
    """The traits of an account with this allowance.

    There is no batch. `whole_book` is no: `DELETE /v2/positions` gives its orders names of Alpaca's own, so that nobody
    could be asked what became of ours; it fails for shares that a resting order holds, or cancels every order of the
    account, which is more than was decided; and outside hours it queues what the policy may want refused.
    """
    limit = RateLimit(COUNTED, FIFTHS * requests_per_minute * 19 // 20, 60.0)
    return VenueTraits(
        limits=(limit,),
        costs=(
            Cost("snapshot", limit.name, units=SNAPSHOT),
            Cost("submit", limit.name, each=FIFTHS),
            Cost("find_order", limit.name, units=FIFTHS),
            Cost("open_orders", limit.name, units=FIFTHS),
            Cost("fills", limit.name, units=2 * FIFTHS),
            Cost("cancel", limit.name, units=FIFTHS),
        ),
    )


CAPABILITIES: Final = (
    Capability("equity", "yes"),
    Capability("positions", "yes", "shares, ETFs and coins; options are shown, and closed as whole contracts, untried"),
    Capability("orders", "yes"),
    Capability("trigger orders", "yes", "stops, trailing stops and the legs of brackets are in the list of orders"),
    Capability("fills", "yes", "without fees: those come later, as activities of their own"),
    Capability("flows", "yes", "most have a date and no time, and are dated with when they were first seen"),
    Capability("prices", "partly", "the last price of what is held; bid and ask only in the extended session"),
    Capability("market orders", "yes", "stocks: in the regular session; outside it as `outside_hours` says"),
    Capability("limit orders", "yes", "fractional shares: for the day; in the extended session: for the day only"),
    Capability("reduce only", "partly", "shares: position_intent refuses to open; coins cannot be sold short"),
    Capability("put back stops", "partly", "shares: yes; coins: only stops with a limit price"),
    Capability("batch orders", "no"),
    Capability("close book", "no", "its orders would bear no name of ours, and could not be asked about"),
    Capability("position mode", "yes", "one way, always"),
    Capability("find by client id", "yes"),
    Capability("dead man", "no"),
    Capability("push", "yes", "trade_updates: orders and fills; prices and cash are not pushed"),
    Capability("key rights", "no", "Alpaca does not tell what a key may do"),
    Capability("clock", "yes"),
    Capability("bars", "partly", "coins: without keys; stocks: only with keys in APCA_API_KEY_ID, APCA_API_SECRET_KEY"),
    Capability("sandbox", "yes", "paper accounts, with keys of their own"),
    Capability("demo", "no"),
)  # fmt: skip
