"""The generated files: the pages of the reference, and the schema for editors."""

from __future__ import annotations

import json
from collections.abc import Mapping

from killswitch.policy.kinds import KINDS
from killswitch.policy.schema.json_schema import schema_of_all
from killswitch.signals.catalogue import TRIGGER_SIGNALS
from tools.reference.commands import cli_page
from tools.reference.diagnostics import diagnostics_page
from tools.reference.documents import policy_page
from tools.reference.guarantees import guarantees_page
from tools.reference.incident import incident_page
from tools.reference.not_yet import not_yet_page
from tools.reference.policy_mutants import policy_mutants_page
from tools.reference.protections import protections_page
from tools.reference.signals import signals_page


def generated() -> Mapping[str, str]:
    """File → text."""
    pages = {f"docs/reference/{name}": text for name, text in reference().items()}
    schema = json.dumps(schema_of_all(KINDS, TRIGGER_SIGNALS), indent=2, ensure_ascii=False)
    return {**pages, "docs/protections.md": protections_page(), "policies/killswitch.schema.json": schema + "\n"}


def reference() -> Mapping[str, str]:
    """File name in docs/reference/ → the page's text."""
    return {
        "policy.md": policy_page(),
        "signals.md": signals_page(),
        "diagnostics.md": diagnostics_page(),
        "cli.md": cli_page(),
        "incident.md": incident_page(),
        "guarantees.md": guarantees_page(),
        "not-yet.md": not_yet_page(),
        "policy-mutants.md": policy_mutants_page(),
    }
