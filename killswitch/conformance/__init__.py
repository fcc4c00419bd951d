"""Guarantees that every venue adapter must keep, as pytest tests for any adapter. See docs/conformance.md.

    from killswitch.conformance import AdapterGuarantees

    class TestAcme(AdapterGuarantees):
        @pytest.fixture
        def harness(self): return AcmeHarness()

Needs pytest; nothing else in the package imports this.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(f"killswitch.conformance.{each}" for each in ("snapshots", "orders", "guarantees", "answers", "case"))
)

from killswitch.conformance.guarantees import AdapterGuarantees as AdapterGuarantees  # noqa: E402 - rewritten first
from killswitch.conformance.harness import Mishap as Mishap  # noqa: E402 - as above
from killswitch.conformance.harness import VenueHarness as VenueHarness  # noqa: E402 - as above
