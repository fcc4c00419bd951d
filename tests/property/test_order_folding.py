"""The fold of orders, compared with a naive computation over the same rows that uses no record of the product.

The executor's position target, the ledger of the position, the reconciliation of the venue's orders and the report use
one fold. Here each is compared with sums over the text of the rows: an error of the fold is in none of these sums."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from killswitch.execution.query.order_discrepancies import journal_status
from killswitch.incident.record.order_outcomes import order_outcomes
from killswitch.journal.codec import decode, decode_all
from killswitch.journal.ledger import PositionLedger
from killswitch.journal.lifecycle import ForbiddenTransitionError, TargetState
from killswitch.journal.orders import JournaledOrders
from killswitch.journal.targets import PositionTarget
from killswitch.model.decision import Decision
from killswitch.model.store import JournalEntry
from tests.honest_venue import NOW

D = Decimal
DECIDED: Final = D(10)
ANSWERS: Final = ("acknowledged", "unknown", "rejected", "absent", "filled", "set_aside", "abandoned")
LATER: Final = "of a later version"
KNOWN: Final = {
    "sending": "sent", "acknowledged": "sent", "unknown": "sent", "set_aside": "sent", "filled": "final",
    "rejected": "nothing", "absent": "nothing", "abandoned": "abandoned",
}  # fmt: skip
FATES: Final = {
    "filled": "final", "rejected": "final", "absent": "final", "set_aside": "set aside", "abandoned": "abandoned",
}  # fmt: skip


def a_row(kind: str, name: str | None, **data: str | None) -> JournalEntry:
    attempt = None if name is None else int(name[1:])
    return JournalEntry("d1", kind, NOW, "main", "BTC", "long", name, attempt, data)


def fresh() -> PositionTarget:
    return PositionTarget("d1", "main", "BTC", "long", "sell", D(0), DECIDED, DECIDED, True, 1, 0)


def history(draws: st.DataObject) -> list[JournalEntry]:
    """Rows as the product writes them: each may follow the ones before it. Numbers may be unreadable."""
    target, rows = fresh(), []
    for _ in range(draws.draw(st.integers(1, 14))):
        kind = draws.draw(st.sampled_from(["sending", *ANSWERS, "sending", "absent", "set_aside", "verified"]))
        if kind == "sending":
            name = f"o{target.attempt + 1 if target.is_id_used else target.attempt}"
            amount = draws.draw(st.sampled_from(["4", "2", "?"]))
            made = a_row(kind, name, side="sell", amount=amount, position="10", order="market")
        elif kind == "verified":
            made = a_row(kind, None, position="10", target="0")
        else:
            names = [name for name in (target.client_order_id, *target.detached) if name is not None]
            if not names:
                continue
            filled = draws.draw(st.sampled_from(["0", "1", "2", "?"])) if kind == "filled" else None
            reason = draws.draw(st.sampled_from(["other", "rate_limited"])) if kind == "rejected" else None
            made = a_row(kind, draws.draw(st.sampled_from(names)), filled=filled, reason=reason)
        try:
            target.apply(decode(made))
        except ForbiddenTransitionError:
            continue
        rows.append(made)
    return rows


def readable(text: str | None) -> Decimal | None:
    return None if text in (None, "?") else D(text)


def sent_at_most(rows: list[JournalEntry], name: str) -> Decimal:
    """The largest amount sent under a name; the whole decided amount, where an amount is unreadable."""
    amounts = [readable(row.data["amount"]) for row in rows if (row.kind, row.client_order_id) == ("sending", name)]
    numbers = [amount for amount in amounts if amount is not None]
    return max([*numbers, DECIDED] if len(numbers) < len(amounts) else numbers)


def sent_last(rows: list[JournalEntry], name: str) -> Decimal:
    """The amount last sent under a name; the whole decided amount, where that is unreadable."""
    amount = readable([row for row in about(rows, name) if row.kind == "sending"][-1].data["amount"])
    return DECIDED if amount is None else amount


def about(rows: list[JournalEntry], name: str) -> list[JournalEntry]:
    return [row for row in rows if row.client_order_id == name]


def closed_at_worst(rows: list[JournalEntry], name: str) -> Decimal:
    """The filled amount of an order by its row; where that is unreadable, the largest possible one."""
    found = [row.data["filled"] for row in about(rows, name) if row.kind == "filled"]
    if not found:
        return D(0)
    filled = readable(found[0])
    return sent_at_most(rows, name) if filled is None else filled


def is_detached(rows: list[JournalEntry], name: str) -> bool:
    """Whether nobody waits for it, since it was sent last, and no row has its end either."""
    kinds = [row.kind for row in about(rows, name)]
    since = kinds[len(kinds) - 1 - kinds[::-1].index("sending") :]
    return "set_aside" in since and not {"filled", "rejected", "absent", "abandoned"}.intersection(since)


@settings(max_examples=400)
@given(st.data())
def test_target_ledger_and_rows_agree_on_every_order(draws: st.DataObject) -> None:
    """What has filled, what may fill yet at worst, and which orders nobody waits for."""
    rows = history(draws)
    names = dict.fromkeys(row.client_order_id for row in rows if row.client_order_id is not None)
    target, ledger = fresh(), PositionLedger()
    for entry in decode_all(rows):
        target.replay(entry)
        ledger.apply(entry, DECIDED)
    aside = {name for name in names if is_detached(rows, name)}
    lost = {row.client_order_id for row in rows if row.kind == "abandoned"}
    assert set(target.detached) == aside
    assert set(target.abandoned) == lost
    assert target.filled == sum((closed_at_worst(rows, name) for name in names), D(0))
    assert target.outstanding == sum((sent_at_most(rows, name) for name in names if name in aside | lost), D(0))
    open_ones = {name for name in names if not {"filled", "rejected", "absent"}.intersection(last_kinds(rows, name))}
    assert ledger.outstanding == {name: sent_last(rows, name) for name in open_ones}
    assert ledger.detached & open_ones == aside | lost
    in_flight = open_ones - aside - lost
    assert in_flight == ({target.client_order_id} if target.is_in_flight else set())


def last_kinds(rows: list[JournalEntry], name: str) -> list[str]:
    """The kinds of rows about an order since it was sent last."""
    kinds = [row.kind for row in about(rows, name)]
    return kinds[len(kinds) - kinds[::-1].index("sending") :]


@settings(max_examples=400)
@given(st.data())
def test_reconciliation_uses_the_values_of_the_rows(draws: st.DataObject) -> None:
    """By name: the status by its newest row, the most that was sent, and its final status."""
    rows = history(draws)
    orders = JournaledOrders(decode_all(rows))
    names = {row.client_order_id for row in rows if row.client_order_id is not None}
    assert set(orders.newest) == names
    for name, order in orders.newest.items():
        newest = about(rows, name)[-1]
        amounts = [readable(row.data["amount"]) for row in about(rows, name) if row.kind == "sending"]
        assert journal_status(order) == KNOWN[newest.kind]
        assert order.largest_sent == max((each for each in amounts if each is not None), default=None)
        assert order.filled == (readable(newest.data["filled"]) if newest.kind == "filled" else None)


@settings(max_examples=200)
@given(st.data())
def test_a_report_has_a_line_for_every_order_that_was_sent(draws: st.DataObject) -> None:
    """With the last row about each before its name was sent again; an unreadable value is unknown."""
    rows = history(draws)
    decision = Decision("d1", NOW, "p", "sha256:0", "account/main", "enforce", "close", 1, 0)
    expected = []
    for index, row in enumerate(rows):
        if row.kind == "sending":
            later = [each for each in rows[index + 1 :] if each.client_order_id == row.client_order_id]
            kinds = [each.kind for each in later]
            later = later[: kinds.index("sending")] if "sending" in kinds else later
            last = later[-1] if later else row
            filled = readable(last.data.get("filled"))
            expected.append(
                (row.client_order_id, readable(row.data["amount"]), FATES.get(last.kind, "in flight"), filled)
            )
    found = order_outcomes(decision, decode_all(rows), None)
    assert [(each.client_order_id, each.amount, each.fate, each.filled) for each in found] == expected


@given(
    st.lists(st.tuples(st.sampled_from([LATER, *ANSWERS, "sending"]), st.sampled_from(["o1", "o2", None])), max_size=9)
)
def test_undecodable_entries_stop_no_recovery_and_count_at_their_worst(
    kinds: list[tuple[str, str | None]],
) -> None:
    """At any place: no cost is known, its order is queried, and nothing is sent on it at once."""
    rows = [a_row(kind, name, amount="4", position="10", filled="1") for kind, name in kinds]
    target, ledger = fresh(), PositionLedger()
    for entry in decode_all(rows):
        target.replay(entry)
        ledger.apply(entry, DECIDED)
    if any(row.kind == LATER for row in rows):
        assert (target.cost, target.delay) == (None, None)
    last = rows[-1] if rows else None
    if last is None or last.kind != LATER:
        return
    name = last.client_order_id
    if name is None:
        assert target.state in (TargetState.UNKNOWN, TargetState.SETTLED)
    else:
        assert name in target.detached or (target.client_order_id, target.state) == (name, TargetState.UNKNOWN)
        assert ledger.outstanding[name] > 0
