"""Every adapter of the house, held against the guarantees that any adapter must keep."""

from __future__ import annotations

import pytest

from killswitch.conformance import AdapterGuarantees, Stand
from tests.conformance.stands import PaperStand


class TestPaperInProcess(AdapterGuarantees):
    """The paper venue without a network between."""

    @pytest.fixture
    def stand(self) -> Stand:
        return PaperStand(http=False)


class TestPaperOverHttp(AdapterGuarantees):
    """The paper venue in another process, as far as the wire is concerned."""

    @pytest.fixture
    def stand(self) -> Stand:
        return PaperStand(http=True)
