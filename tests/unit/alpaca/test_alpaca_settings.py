"""What an Account document may say of Alpaca."""

from __future__ import annotations

import pytest

from killswitch_alpaca.settings import OPTIONS, read_settings
from tests.unit.alpaca.documents import spec


def test_a_misspelt_option_is_refused_with_the_one_that_was_meant() -> None:
    """It would be heeded by nobody, and that would show only when it is needed."""
    with pytest.raises(ValueError, match="no option time_out, did you mean timeout\\?; it has data_feed, ext"):
        read_settings(spec(options={"time_out": 3}))


def test_the_option_that_the_runner_reads_is_one_of_them() -> None:
    """`suspend_trade` is heeded outside the adapter."""
    assert "suspend_trade" in OPTIONS
    assert read_settings(spec(options={"suspend_trade": True, "timeout": 3})).timeout == 3
