"""The guarantees, numbered; each is a test. Numbers are never used again for something else."""

from __future__ import annotations

import pytest

from killswitch.conformance.answers import AnswerGuarantees
from killswitch.conformance.itself import OwnGuarantees
from killswitch.conformance.orders import OrderGuarantees
from killswitch.conformance.reading import ReadingGuarantees
from killswitch.conformance.stand import Stand


class AdapterGuarantees(ReadingGuarantees, OrderGuarantees, OwnGuarantees, AnswerGuarantees):
    """Subclass it, and give it a fixture `stand`."""

    @pytest.fixture
    def stand(self) -> Stand:
        """The venue in the tester's hands."""
        raise NotImplementedError("a subclass of AdapterGuarantees gives a fixture `stand`; see docs/conformance.md")
