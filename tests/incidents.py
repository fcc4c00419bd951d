"""Stores filled by a test, as a run would have left them, for tests of what is read from them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import msgspec
from msgspec import Struct, field

from killswitch.incident.record.source_places import PolicyText, TriggerText, WrittenAt
from killswitch.model.decision import (
    Attribution,
    Book,
    BookChange,
    Decision,
    Intent,
    LockOrder,
    Notice,
    TriggerReading,
)
from killswitch.model.instant import to_micros
from killswitch.model.snapshot import Snapshot, encode_snapshot
from killswitch.model.store import HistoryRow, JournalEntry, Outgoing, TickRecord
from killswitch.store.sql import SqlStore
from killswitch.store.sqlite import open_store
from tests import worlds
from tests.worlds import after

POLICY, SCOPE, SET = "drawdown", "account/main", "sha256:abc"
FIRST, SECOND, RESET = "aa" * 10, "bb" * 10, "cc" * 10
"""Ids of the level 1 firing, the level 3 firing, and the reset."""


class FilledStore(Struct):
    """A store that is filled tick by tick."""

    store: SqlStore
    path: Path
    _at: datetime = field(default=worlds.START)

    def tick(
        self,
        at: datetime,
        decisions: Sequence[Decision] = (),
        journal: Sequence[JournalEntry] = (),
        *,
        snapshot: Snapshot | None = None,
        notices: Sequence[Notice] = (),
        rows: Sequence[HistoryRow] = (),
        messages: Sequence[Outgoing] = (),
        prune_before: int = 0,
    ) -> None:
        self.store.commit_tick(
            TickRecord(
                as_of=at, policy_set=SET, states=(), rows=tuple(rows), decisions=tuple(decisions),
                notices=tuple(notices), journal=tuple(journal),
                snapshot=None if snapshot is None else encode_snapshot(snapshot),
                consumed_events=(), prune_before=prune_before, messages=tuple(messages),
            )
        )  # fmt: skip


def filled_store(folder: Path) -> FilledStore:
    """An empty store in `folder`, with the lines of the policy kept."""
    path = folder / "store.sqlite"
    store = open_store(str(path))
    lines = PolicyText(
        WrittenAt("policies/p.yaml", 3, "name: drawdown"),
        {
            "trim": WrittenAt("policies/p.yaml", 10, "- name: trim"),
            "close-everything": WrittenAt("policies/p.yaml", 20, "- name: close-everything"),
        },
        {
            "fall": TriggerText(
                WrittenAt("policies/p.yaml", 7, "fall: {signal: equity.drawdown, window: 15m, at_least: 4.5%}"),
                "equity.drawdown", "fraction", ">= 4.5%",
            )
        },
    )  # fmt: skip
    store.put_live(f"places/{SET}", msgspec.json.encode({POLICY: lines}))
    return FilledStore(store, path)


def snapshot(at: datetime) -> Snapshot:
    """10 BTC long from 110 at 100, 5 ETH short from 60 at 50: both linear, equity 1,000."""
    return worlds.snapshot(
        at,
        worlds.account(
            "1000",
            (
                worlds.position("BTC", "long", "-100", contracts="10", entry_price="110", mark_price="100",
                                notional="1000"),
                worlds.position("ETH", "short", "50", contracts="5", entry_price="60", mark_price="50",
                                notional="250"),
            ),
        ),
    )  # fmt: skip


def firing(id_: str, at: datetime, stage: str, level: int, previous: int, *intents: Intent, **more: object) -> Decision:
    """A stage of the policy that fires."""
    fields: dict[str, object] = {
        "id": id_, "as_of": at, "policy": POLICY, "policy_set": SET, "scope": SCOPE, "mode": "enforce",
        "stage": stage, "level": level, "previous_level": previous, "intents": intents,
        "triggers": (TriggerReading("fall", ("0.051", "0.051"), "0.045", at, None),),
        "attribution": Attribution("LONG", "0.8", "0.2", "15m"),
        "book": BookChange(Book(Decimal(1250), Decimal(750), None), Book(Decimal(0), Decimal(0), None)),
        "lock": LockOrder(SCOPE, "reduce_only", None),
    }  # fmt: skip
    return Decision(**{**fields, **more})  # type: ignore[arg-type] # literal by the caller


def intent(symbol: str, side: str, contracts: str, target: str, rank: int = 1) -> Intent:
    """An order of the decision, on the account main."""
    held = "long" if side == "sell" else "short"
    return Intent("main", symbol, held, side, Decimal(contracts), Decimal(target), True, rank)  # type: ignore[arg-type]  # a side by the caller


def entry(decision: str, kind: str, at: datetime, symbol: str | None = "BTC", **data: str | None) -> JournalEntry:
    """A journal entry about a position of main; its client order id is the symbol's."""
    held = None if symbol is None else "long" if symbol.startswith("BTC") else "short"
    named = kind not in ("planned", "verified", "finished", "locked", "cancelled")
    return JournalEntry(
        decision, kind, at, "main" if kind != "locked" else None, symbol, held,
        f"ks{decision[:4]}{symbol}" if named else None, 1 if named else None, data,
    )  # fmt: skip


def reset(at: datetime, id_: str = RESET, author: str | None = "ada", reason: str | None = "it is over") -> Decision:
    """An operator's reset."""
    return Decision(
        id_, at, POLICY, SET, SCOPE, "enforce", "close-everything", 0, 3, kind="reset", author=author, reason=reason
    )


def whole_incident(written: FilledStore) -> None:
    """Level 1 at :00 sells 5 BTC; level 3 a minute later closes all; a reset ten minutes later."""
    first = firing(FIRST, after(), "trim", 1, 0, intent("BTC", "sell", "5", "5"))
    written.tick(
        after(),
        [first],
        [entry(FIRST, "planned", after(), contracts="5", target="5", mark="100", value="100")],
        snapshot=snapshot(after()),
    )
    for each in (
        entry(FIRST, "sending", after(seconds=1), side="sell", amount="5", position="10", mark="100", value="100"),
        entry(FIRST, "filled", after(seconds=2), state="filled", filled="5", price="99", fee="1"),
        entry(FIRST, "verified", after(seconds=3), position="5", target="5"),
        entry(FIRST, "finished", after(seconds=3), None, status="flat", cost="6"),
    ):
        written.store.append(each)
    second = firing(
        SECOND, after(minutes=1), "close-everything", 3, 1,
        intent("BTC", "sell", "5", "0"), intent("ETH", "buy", "5", "0", 2),
    )  # fmt: skip
    written.tick(
        after(minutes=1),
        [second],
        [
            entry(SECOND, "planned", after(minutes=1), contracts="5", target="0", mark="100", value="100"),
            entry(SECOND, "planned", after(minutes=1), "ETH", contracts="5", target="0", mark="50", value="50"),
        ],
        snapshot=snapshot(after(minutes=1)),
        notices=[Notice(after(minutes=1), POLICY, SCOPE, "warning", "warning", "the book is thin")],
    )
    for each in (
        entry(SECOND, "sending", after(minutes=1, seconds=1), side="sell", amount="5", position="5", mark="100",
              value="100"),
        entry(SECOND, "unknown", after(minutes=1, seconds=6), text="no answer within 5 s"),
        entry(SECOND, "filled", after(minutes=1, seconds=8), state="filled", filled="5", price="99", fee="1"),
        entry(SECOND, "sending", after(minutes=1, seconds=2), "ETH", side="buy", amount="5", position="5", mark="50",
              value="50"),
        entry(SECOND, "filled", after(minutes=1, seconds=3), "ETH", state="filled", filled="5", price="51", fee="1"),
        entry(SECOND, "verified", after(minutes=1, seconds=9), position="0", target="0"),
        entry(SECOND, "verified", after(minutes=1, seconds=9), "ETH", position="0", target="0"),
        entry(SECOND, "finished", after(minutes=1, seconds=9), None, status="flat", cost="12"),
    ):  # fmt: skip
        written.store.append(each)
    written.tick(after(minutes=11), [reset(after(minutes=11))])


def rows(first: datetime, values: Sequence[float], *, every: int = 1) -> list[HistoryRow]:
    """History of the scope: one value of a unit every so many seconds."""
    start = to_micros(first)
    return [
        HistoryRow(
            POLICY, SCOPE, at := start + number * every * 1_000_000, msgspec.json.encode([at, value, None])
        )
        for number, value in enumerate(values)
    ]  # fmt: skip
