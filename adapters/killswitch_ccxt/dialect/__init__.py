"""A dialect: the requests and answers of one account at its exchange, in parts. `venues/` has one for each exchange."""

from __future__ import annotations

from abc import ABC

from killswitch_ccxt.dialect.core import Inspected, Streamed
from killswitch_ccxt.dialect.order_calls import BatchResults, CcxtTimer, OrderCalls, TimerCalls, is_stop
from killswitch_ccxt.dialect.reads import AccountReads, PositionMode, mode_of
from killswitch_ccxt.dialect.transfers import TransferCalls

__all__ = ["BatchResults", "CcxtTimer", "Dialect", "PositionMode", "TransferCalls", "is_stop", "mode_of"]


class Dialect(AccountReads, OrderCalls, TimerCalls, Inspected, Streamed, ABC):
    """All parts of a dialect. Class attributes are data; each method does one request.

    Every method may raise a VenueError, and UnreadableError for an answer that cannot be parsed.
    """
