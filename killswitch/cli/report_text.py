"""What `report list` looks like."""

from __future__ import annotations

from collections.abc import Sequence

from killswitch.cli.wording import instant, money, table
from killswitch.incident.record import Incident


def list_text(found: Sequence[Incident]) -> str:
    """One line for each incident, newest first."""
    if not found:
        return "No incident is recorded on this store."
    rows = [
        (
            instant(each.opened_at), each.id, each.policy, each.scope, _level(each), _state(each),
            str(len(each.orders)) if each.orders else "-",
            money(each.money.cost, each.money.currency or "") if any(order.filled for order in each.orders) else "-",
        )
        for each in found
    ]  # fmt: skip
    return table(("opened", "incident", "policy", "scope", "highest level", "state", "orders", "cost"), rows, indent="")


def _level(incident: Incident) -> str:
    return "by hand" if incident.by_hand else f"{incident.level} {incident.stage}"


def _state(incident: Incident) -> str:
    left = f", {len(incident.left)} not closed" if incident.left else ""
    return f"{incident.state}{left}"
