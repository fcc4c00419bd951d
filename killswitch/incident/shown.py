"""What a template is given: the names it may use, and nothing else. Validation checks templates against this shape."""

from __future__ import annotations

from msgspec import Struct

from killswitch.incident.record import Firing, Incident


class Shown(Struct, frozen=True):
    """The names of a template. `firing` is the newest one of the runbook's stage; in a report, of the highest."""

    incident: Incident
    firing: Firing


def context_of(incident: Incident, stage: str | None = None) -> dict[str, object]:
    """The names of a runbook of `stage`, or of the report."""
    wanted = incident.stage if stage is None else stage
    firing = next((each for each in reversed(incident.firings) if each.stage == wanted), incident.firings[-1])
    return {"incident": incident, "firing": firing}
