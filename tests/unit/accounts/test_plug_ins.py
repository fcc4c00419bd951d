"""Venue plug-ins by name: those that are installed, and the way out for those that are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import Distribution, distribution
from os import PathLike
from pathlib import Path
from typing import Any

import pytest

from killswitch.accounts import plug_ins as module
from killswitch.accounts.plug_ins import GROUP, NoSuchVenueError, load_plug_ins
from killswitch.model.inspection import Bar, BarHistory, Capability
from killswitch.model.venue import VenueDescription, VenueListing


class Bars:
    """No bars at all."""

    async def bars(self, symbol: str, timeframe: str, since: int, limit: int | None = None) -> Sequence[Bar]:
        return ()

    async def close(self) -> None: ...


class TwoExchanges:
    """Two exchanges of one adapter; one of them has bars."""

    def listings(self) -> Sequence[VenueListing]:
        yes = (Capability("equity", "yes"),)
        return [VenueListing("made-up", name, ("swap",), yes, VenueDescription()) for name in ("swapex", "spotex")]

    def history(self, exchange: str, endpoint: str | None = None) -> BarHistory | None:
        if exchange == "lazy":
            raise ModuleNotFoundError("No module named 'bigclient'", name="bigclient")
        return Bars() if exchange == "swapex" else None


made_up = TwoExchanges()


def broken() -> None:
    raise AssertionError("never called")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose import fails, as where its client is not installed."""
    (tmp_path / "needs_client.py").write_text("import bigclient_that_is_not_there\n")
    (tmp_path / "defective.py").write_text("raise RuntimeError('it does not compute')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path


class Declaring(Distribution):
    """This distribution with other plug-ins."""

    def __init__(self, entries: Mapping[str, str]) -> None:
        self._ours = distribution("killswitch")
        self._text = "\n".join((f"[{GROUP}]", *(f"{name} = {value}" for name, value in entries.items())))

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "entry_points.txt" else self._ours.read_text(filename)

    def locate_file(self, path: str | PathLike[str]) -> Any:
        return self._ours.locate_file(path)


def declared(monkeypatch: pytest.MonkeyPatch, **entries: str) -> None:
    """As though this distribution declared these plug-ins."""
    points = Declaring(entries).entry_points
    monkeypatch.setattr(module, "entry_points", lambda group: points.select(group=group))


HERE = "tests.unit.accounts.test_plug_ins"


def test_a_plug_in_whose_client_is_not_installed_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """The extra of its name; the other plug-ins are available all the same."""
    declared(monkeypatch, ccxt="needs_client:family", madeup=f"{HERE}:made_up")
    found = load_plug_ins()
    assert [listing.exchange for listing in found.listings] == ["spotex", "swapex"]
    assert [str(each) for each in found.absent] == [
        "the venues of ccxt are not available: ModuleNotFoundError: No module named 'bigclient_that_is_not_there'; "
        "pip install '.[ccxt]' in a clone of killswitch, or what its extra ccxt lists"
    ]


def test_a_defect_of_a_plug_in_is_not_blamed_on_the_installation(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Any other failure is reported as the plug-in's own, as is a missing module of its own."""
    declared(monkeypatch, ccxt="defective:family", alpaca="nowhere.at.all:family")
    absent = [str(each) for each in load_plug_ins().absent]
    assert absent[0].endswith(
        "No module named 'nowhere'; this is a defect of nowhere.at.all:family; other venues are not affected"
    )
    assert "RuntimeError: it does not compute; this is a defect of defective:family" in absent[1]


def test_a_client_missing_at_its_first_use_is_reported_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients are imported at their first use, so that a verb starts fast."""
    declared(monkeypatch, ccxt=f"{HERE}:made_up")
    with pytest.raises(NoSuchVenueError, match=r"No module named 'bigclient'; pip install '\.\[ccxt\]' in a clone"):
        load_plug_ins().history("lazy", None)


def test_an_unknown_venue_is_reported_with_a_suggestion(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """And with the plug-ins that are not available: it may be one of theirs."""
    declared(monkeypatch, ccxt="needs_client:family", madeup=f"{HERE}:made_up")
    with pytest.raises(NoSuchVenueError, match="no venue is called swapexx, did you mean swapex") as refused:
        load_plug_ins().named("swapexx")
    assert "pip install '.[ccxt]' in a clone of killswitch, or what its extra ccxt lists" in str(refused.value)


def test_bars_come_from_the_first_plug_in_that_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """A venue without any is distinguished from an unknown one."""
    declared(monkeypatch, madeup=f"{HERE}:made_up")
    assert isinstance(load_plug_ins().history("swapex", None), Bars)
    with pytest.raises(NoSuchVenueError, match="spotex gives no public bars here"):
        load_plug_ins().history("spotex", None)
    with pytest.raises(NoSuchVenueError, match="no venue is called otherex"):
        load_plug_ins().history("otherex", None)


def test_an_unknown_name_mentions_that_a_plug_in_reaches_more_than_it_lists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was asked for the name too, and has none."""

    class Wider(type(made_up)):  # type: ignore[misc] # the class of the instance
        def listing(self, exchange: str) -> None:
            return None

    monkeypatch.setattr(f"{HERE}.made_up", Wider())
    declared(monkeypatch, madeup=f"{HERE}:made_up")
    with pytest.raises(NoSuchVenueError, match="known: spotex, swapex, and any other exchange of madeup by its name"):
        load_plug_ins().named("nonsense")
