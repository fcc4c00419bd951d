"""Every adapter of this project against the guarantees that any adapter must keep."""

from __future__ import annotations

import pytest

from killswitch.conformance import AdapterGuarantees, VenueHarness
from tests.conformance.harnesses import PaperHarness, WireHarness
from tests.conformance.wires import WIRES
from tests.rotation import turn_of
from tools.reference.guarantees import guarantees


class TestPaperInProcess(AdapterGuarantees):
    """The paper venue without a network."""

    @pytest.fixture
    def harness(self) -> VenueHarness:
        return PaperHarness(http=False)


class TestPaperOverHttp(AdapterGuarantees):
    """The paper venue in another process, as far as the wire is concerned."""

    @pytest.fixture
    def harness(self) -> VenueHarness:
        return PaperHarness(http=True)


@turn_of("binance", WIRES, "guarantees")
class TestBinance(AdapterGuarantees):
    """ccxt's binanceusdm against a server that speaks its wire format."""

    @pytest.fixture
    def harness(self) -> VenueHarness:
        return WireHarness(WIRES["binance"])


@turn_of("bybit", WIRES, "guarantees")
class TestBybit(AdapterGuarantees):
    """ccxt's bybit against a server that speaks its wire format."""

    @pytest.fixture
    def harness(self) -> VenueHarness:
        return WireHarness(WIRES["bybit"])


@turn_of("bitget", WIRES, "guarantees")
class TestBitget(AdapterGuarantees):
    """ccxt's bitget against a server that speaks its wire format."""

    @pytest.fixture
    def harness(self) -> VenueHarness:
        return WireHarness(WIRES["bitget"])


@turn_of("okx", WIRES, "guarantees")
class TestOkx(AdapterGuarantees):
    """ccxt's okx against a server that speaks its wire format."""

    @pytest.fixture
    def harness(self) -> VenueHarness:
        return WireHarness(WIRES["okx"])


@turn_of("krakenfutures", WIRES, "guarantees")
class TestKrakenFutures(AdapterGuarantees):
    """ccxt's krakenfutures against a server that speaks its wire format."""

    @pytest.fixture
    def harness(self) -> VenueHarness:
        return WireHarness(WIRES["krakenfutures"])


@turn_of("mexc", WIRES, "guarantees")
class TestMexc(AdapterGuarantees):
    """ccxt's mexc against a server that speaks its wire format."""

    @pytest.fixture
    def harness(self) -> VenueHarness:
        return WireHarness(WIRES["mexc"])


@turn_of("alpaca", WIRES, "guarantees")
class TestAlpaca(AdapterGuarantees):
    """The adapter against a server that speaks the wire format of the trading API."""

    @pytest.fixture
    def harness(self) -> VenueHarness:
        return WireHarness(WIRES["alpaca"])


def test_no_two_guarantees_have_one_number() -> None:
    """A number in a report names one guarantee."""
    numbers = [number for number, _, _ in guarantees()]
    assert sorted(set(numbers)) == numbers
