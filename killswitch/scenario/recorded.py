"""A stretch of a recording as a scenario: its snapshots, and the document that names them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from msgspec.structs import replace

from killswitch.model.snapshot import Instrument, Snapshot


def stretch(snapshots: Iterable[Snapshot], begins: datetime, ends: datetime) -> Iterator[Snapshot]:
    """The snapshots from `begins` to `ends`, both included.

    The rules of symbols hold until they are reported again, so that the first snapshot has those from before it. What
    signals remember of earlier snapshots is not part of the stretch: begin it as long before as the longest window.
    """
    rules: dict[str, dict[str, Instrument]] = {}
    is_first = True
    for snapshot in snapshots:
        if snapshot.as_of > ends:
            return
        for account in snapshot.accounts:
            known = rules.setdefault(account.account, {})
            known.update({each.symbol: each for each in account.instruments or ()})
        if snapshot.as_of < begins:
            continue
        if is_first:
            accounts = (replace(it, instruments=tuple(rules[it.account].values())) for it in snapshot.accounts)
            yield replace(snapshot, accounts=tuple(accounts), missing=0)
            is_first = False
        else:
            yield snapshot


def scenario_of_recording(name: str, policies: Sequence[str], recording: str) -> str:
    """The YAML of a scenario that replays `recording`, a path relative to it, and expects that nothing fires."""
    return (
        "apiVersion: killswitch.dev/v1\n"
        "kind: Scenario\n"
        f"metadata: {{name: {name}}}\n"
        "spec:\n"
        f"  policies: [{', '.join(policies)}]\n"
        f"  recording: {recording}\n"
        "  # What fires is a failure until it is written here: `ksctl test --update` prints what was seen.\n"
        "  expect: []\n"
    )
