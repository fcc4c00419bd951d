"""The paper venue as an adapter: in process with a `PaperMarket`, or over HTTP on loopback."""

from __future__ import annotations

from killswitch.market.paper import PaperMarket
from killswitch.model.clock import Clock
from killswitch.model.fitting import positive_option
from killswitch.model.venue import AccountSpec, VenueAdapter


def adapter(spec: AccountSpec) -> VenueAdapter:
    """Build the adapter of `spec`.

    With a `PaperMarket` as option `market` it runs in this process, with the time of the option `clock` where there is
    one; otherwise `endpoint` names a paper server, `http://127.0.0.1:PORT`. Raises ValueError for neither, for an
    endpoint that is not on loopback, and for an account that the market does not have.
    """
    market = spec.options.get("market")
    if isinstance(market, PaperMarket):
        from killswitch_paper.local import LocalVenue

        return LocalVenue(spec.account, market, _clock(spec.options.get("clock")), spec.watch)
    if market is not None:
        raise ValueError(f"option market of account {spec.account} must be a PaperMarket")
    if spec.endpoint is None:
        raise ValueError(f"account {spec.account} needs an endpoint: http://127.0.0.1:PORT of a paper server")
    from killswitch_paper.client import HttpVenue

    return HttpVenue(spec, timeout=float(positive_option(spec, "timeout", 5, "seconds")))


def _clock(option: object) -> Clock | None:
    # Clock is a protocol that cannot be checked at run time; only `now` is used here.
    return option if hasattr(option, "now") else None  # type: ignore[return-value] # it has `now`
