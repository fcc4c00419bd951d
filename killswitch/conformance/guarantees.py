"""The numbered guarantees of an adapter; each is a test. A number is never reused for another guarantee."""

from __future__ import annotations

import pytest

from killswitch.conformance.answers import AnswerGuarantees
from killswitch.conformance.behaviour import BehaviourGuarantees
from killswitch.conformance.harness import VenueHarness
from killswitch.conformance.orders import OrderGuarantees
from killswitch.conformance.snapshots import SnapshotGuarantees


class AdapterGuarantees(SnapshotGuarantees, OrderGuarantees, BehaviourGuarantees, AnswerGuarantees):
    """The guarantees of an adapter. Subclass it, and define a fixture `harness`."""

    @pytest.fixture
    def harness(self) -> VenueHarness:
        """The test bench: a venue that the test controls."""
        raise NotImplementedError(
            "a subclass of AdapterGuarantees must define a fixture `harness`; see docs/conformance.md"
        )
