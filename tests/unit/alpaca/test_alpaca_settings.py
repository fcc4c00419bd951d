"""Options of an Account document for Alpaca."""

from __future__ import annotations

import pytest

from killswitch_alpaca.settings import OPTIONS, read_settings
from tests.unit.alpaca.account_specs import spec


def test_a_misspelt_option_is_rejected_with_a_suggestion() -> None:
    """It would have no effect, which would be noticed only when it is needed."""
    with pytest.raises(ValueError, match="no option time_out, did you mean timeout\\?; it has data_feed, ext"):
        read_settings(spec(options={"time_out": 3}))


def test_the_option_that_the_runner_reads_is_accepted() -> None:
    """`suspend_trade` takes effect outside the adapter."""
    assert "suspend_trade" in OPTIONS
    assert read_settings(spec(options={"suspend_trade": True, "timeout": 3})).timeout == 3
