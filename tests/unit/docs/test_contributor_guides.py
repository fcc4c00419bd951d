"""The guides for adding a document kind, a diagnostic and a venue work exactly as written."""

from __future__ import annotations

import re
import sys
import textwrap
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from killswitch.accounts.plug_ins import load_plug_ins as families_of_venues
from killswitch.graph.compile import digest
from killswitch.model.fitting import WrittenAccount
from killswitch.policy.diagnostics import pages
from killswitch.policy.kinds import KINDS, document_kind
from killswitch.policy.loader import LoadedDocuments, load
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.json_schema import schema_of_all
from killswitch_ccxt import adapter, validation
from killswitch_ccxt.family import family
from killswitch_ccxt.validation import Offered

OF_DOCUMENTS = """
from collections.abc import Iterator
from typing import Annotated, Literal
from killswitch.policy.schema.cross_key_checks import Breach
from killswitch.policy.schema.document import VersionedPart
from killswitch.policy.schema.part import AtLeastOne, Part
from killswitch.policy.schema.scalars import Duration, Word
"""
OF_DIALECTS = """
from __future__ import annotations
from collections.abc import Mapping, Sequence
from typing import Final
from killswitch.model.parsing import Row
from killswitch.model.snapshot import Fill, Flow, Order
from killswitch.model.venue import AccountSpec, ClientIdRule, Cost, OrderLife, RateLimit
from killswitch_ccxt import fills, orders
from killswitch_ccxt.dialect import Dialect
from killswitch_ccxt.errors import GoneError, limited, rejected
"""
CALENDAR = """apiVersion: killswitch.dev/v1
kind: Calendar
metadata: {name: nyse}
spec: SPEC
"""


def block(page: Path, language: str) -> str:
    """The first block of a page in that language."""
    found = re.search(rf"^( *)(```+){language}\n(.*?)^\1\2$", page.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return textwrap.dedent(found[3])


def module_of(name: str, imports: str, code: str) -> ModuleType:
    module = ModuleType(name)
    exec(compile(imports + code, name, "exec", dont_inherit=True), module.__dict__)
    return module


@pytest.fixture
def calendar(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[VersionedPart]:
    """The document kind of the page, registered. Descriptions of keys are read from the file of its module."""
    code = block(repository / "docs" / "add-a-document-kind.md", "python")
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "calendar_of_the_page.py").write_text(OF_DOCUMENTS + code)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "calendar_of_the_page", raising=False)
    module = import_module("calendar_of_the_page")
    document: type[VersionedPart] = module.CalendarDocument
    monkeypatch.setitem(KINDS, document_kind(document), document)
    return document


def load_calendar(folder: Path, spec: str) -> LoadedDocuments:
    path = folder / "calendar.yaml"
    path.write_text(CALENDAR.replace("SPEC", spec))
    return load([path])


@pytest.mark.usefixtures("calendar")
@pytest.mark.parametrize(
    ("spec", "caret_at", "code", "fix"),
    [
        ("{market: NYSE, days: [2026-12-25], erly_close: 1h}", "erly_close", "KS2001", "write `early_close`"),
        ("{days: [2026-12-25]}", "spec", "KS2002", "add `market:` — The market, as venues call it."),
        ("{market: NYSE, days: []}", "[]", "KS2007", "name at least one"),
        ("{market: NYSE, days: [2026-12-25], early_close: 3}", "3}", "KS2101", "did you mean 3s or 3m?"),
        ("{market: NYSE, early_close: 3h}", "early_close", "KS2240", "name the `days`"),
        ("{market: NYSE, days: 2026-12-25}", "2026-12-25}", "KS2003", "put it in brackets"),
        ("{market: NYSE, days: [2026-12-25, null]}", "null", "KS2005", "write a value"),
    ],
)
def test_mistakes_in_a_document_of_a_new_kind_are_found(
    tmp_path: Path, spec: str, caret_at: str, code: str, fix: str
) -> None:
    """With line, column, code and fix; the class is sufficient."""
    found = {each.code: each for each in load_calendar(tmp_path, spec).diagnostics}
    assert (found[code].line, found[code].column) == (4, f"spec: {spec}".index(caret_at) + 1)
    assert fix in found[code].fix


def test_a_new_kind_is_read_has_a_digest_and_is_in_the_editors_schema(
    tmp_path: Path, calendar: type[VersionedPart]
) -> None:
    """A valid document has its class; omitting a key and writing its default give the same digest."""
    (document,) = load_calendar(tmp_path, "{market: NYSE, days: ['2026-12-25'], early_close: 3h}").documents
    model: Any = document.model
    assert isinstance(model, calendar)
    assert (model.spec.market, model.spec.days, model.spec.early_close) == ("NYSE", ("2026-12-25",), 3 * 3_600_000_000)
    other = load_calendar(tmp_path, "{market: NYSE, days: ['2026-12-24'], early_close: 3h}").documents
    assert digest([document]) != digest(other)
    schema = schema_of_all(KINDS, {})
    assert "Calendar" in schema["properties"]["kind"]["enum"]
    assert schema["$defs"]["CalendarSpec"]["required"] == ["market", "days"]


def test_a_new_diagnostic_has_its_page(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `ksctl explain` prints it; the guide names exactly the existing groups of codes."""
    guide = repository / "docs" / "add-a-diagnostic.md"
    named = set(re.findall(r"`(KS\d\d)`", guide.read_text()))
    assert named <= {group.digits for group in pages.families()}
    (tmp_path / "ks22-together.md").write_text(f"# Together (KS22xx)\n\n{block(guide, 'markdown')}")
    monkeypatch.setattr(pages, "FOLDER", tmp_path)
    (group,) = pages.families.__wrapped__()
    (page,) = group.pages
    assert (page.code, page.title) == ("KS2241", "A calendar without a year")
    assert (page.example, page.fix) == ("days: [12-25]", "Write the year: 2026-12-25.")


def test_a_new_dialect_is_listed_checked_and_opened(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its two tables: the output of `venues list`, the refusals of `validate`, and the capabilities for closing."""
    from killswitch_ccxt import venues

    code = block(repository / "docs" / "add-a-venue.md", "python")
    monkeypatch.setitem(validation.OFFERED, "gate", Offered("gate", ("swap",)))
    module = module_of("killswitch_ccxt.venues.gate.dialect", OF_DIALECTS, code)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(venues.MODULES, "gate", "gate.dialect.Gate")
    (listing,) = [each for each in families_of_venues().listings if each.exchange == "gate"]
    assert listing.markets == ("swap",)
    spec = module.AccountSpec("main", "ccxt", "swap", "USDT", None, {}, {}, exchange="gate")
    traits = adapter(spec).traits
    assert [(limit.name, limit.allowed) for limit in traits.limits] == [("orders", 100), ("reads", 200)]
    assert traits.order_life.always == 5.0
    (misfit,) = family.misfits(WrittenAccount("gate", "spot", "USDT", "production", ()))
    assert (misfit.key, misfit.fix) == (("market",), "write `market: swap`")
