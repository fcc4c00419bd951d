"""docs/reference/formats.md names every key of the public formats, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from msgspec.structs import fields

from killswitch.incident.notify.message import Message
from killswitch.lab import outcome, reevaluation, summary
from killswitch.lab.pages import answer
from killswitch.model import decision, snapshot
from killswitch.operations import blame, progress
from killswitch.operations.preview import encode_preview, preview
from killswitch.planning import exposures
from killswitch.planning.interpreter import Interpreter
from killswitch.planning.operator import plan_file
from killswitch.planning.orders import expected_cost
from killswitch.planning.scopes import money_headroom
from killswitch.runner.shadow import comparison
from tests import graphs
from tests.worlds import START

FORMATS = {
    "Snapshot": snapshot.Snapshot,
    "Account": snapshot.AccountSnapshot,
    "Position": snapshot.Position,
    "Order": snapshot.Order,
    "Fill": snapshot.Fill,
    "Flow": snapshot.Flow,
    "Balance": snapshot.Balance,
    "Mark": snapshot.Mark,
    "Rate": snapshot.Rate,
    "Corporate action": snapshot.CorporateAction,
    "Instrument": snapshot.Instrument,
    "Liquidity": snapshot.Liquidity,
    "Health": snapshot.Health,
    "Event": snapshot.Event,
    "Closing": snapshot.Closing,
    "Decision": decision.Decision,
    "Net exposure": decision.NetExposure,
    "Exposure of a base": decision.BaseExposure,
    "Option of a hedge": decision.HedgeOption,
    "Order of a hedge": decision.HedgeOrder,
    "Unwinding": decision.Unwinding,
    "Rung": decision.Rung,
    "Trigger reading": decision.TriggerReading,
    "Attribution": decision.Attribution,
    "Intent": decision.Intent,
    "Notice": decision.Notice,
    "Shadow report": comparison.ShadowReport,
    "Difference of a firing": comparison.Difference,
    "Reevaluation": reevaluation.Reevaluation,
    "Blame": blame.Blame,
    "Saved plan": plan_file.SavedPlan,
    "Account basis": plan_file.AccountBasis,
    "Position of the book": exposures.PositionExposure,
    "Headroom in money": money_headroom.MoneyHeadroom,
    "Expected order": expected_cost.ExpectedOrder,
    "Progress": progress.CloseProgress,
    "Open position": progress.OpenPosition,
    "Answer": answer.BacktestAnswer,
    "Run": outcome.Run,
    "Firing": outcome.BacktestFiring,
    "Closed": outcome.ClosedAmount,
    "Liquidation": outcome.Liquidation,
    "Group": summary.Group,
    "Figures": summary.Figures,
    "Against": summary.Against,
}

WITH_REQUIRED_KEYS = ("Account", "Position", "Order", "Fill", "Balance", "Mark", "Rate", "Corporate action")
"""The formats whose required keys the page lists."""


def keys_of(page: str, heading: str) -> list[str]:
    """The keys in the first column of the table below a heading."""
    text = page.split(f"\n### {heading}\n")[1].split("\n#", maxsplit=1)[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [key for cell in cells for key in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("heading", FORMATS)
def test_the_page_names_every_key_once(repository: Path, heading: str) -> None:
    """A reader of the format finds each key, and no key that is never written."""
    page = (repository / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
    written = [field.encode_name for field in fields(FORMATS[heading])]
    assert sorted(keys_of(page, heading)) == sorted(written)


@pytest.mark.parametrize("heading", [name for name in FORMATS if name in WITH_REQUIRED_KEYS])
def test_the_page_marks_exactly_the_required_keys(repository: Path, heading: str) -> None:
    """The rows that end in `needed` name all keys that the decoder requires."""
    page = (repository / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
    text = page.split(f"\n### {heading}\n")[1].split("\n#")[0]
    needed = [
        key
        for line in text.splitlines()
        if line.rstrip(" |").endswith("needed")
        for key in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]
    assert sorted(needed) == sorted(f.encode_name for f in fields(FORMATS[heading]) if f.required)


def test_the_page_on_notifications_names_every_key_of_a_message(repository: Path) -> None:
    """The receiver of a file or a webhook finds each key there."""
    page = (repository / "docs" / "notifications.md").read_text(encoding="utf-8")
    written = [field.encode_name for field in fields(Message)]
    written.append(Message.__struct_config__.tag_field or "")
    assert sorted(keys_of(page.replace("## What a message holds", "### Message"), "Message")) == sorted(written)


def test_the_page_names_every_key_of_a_preview(repository: Path) -> None:
    """Other programs read `ksctl plan --output json`."""
    policies = graphs.policy_set()
    polled = snapshot.Snapshot(START, (), snapshot.SNAPSHOT_FORMAT)
    previewed = json.loads(encode_preview(preview(policies, polled, Interpreter(policies), "", frozenset())))
    page = (repository / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
    assert sorted(keys_of(page, "Preview")) == sorted(previewed)
