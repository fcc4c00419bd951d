"""The life of an alert: which notices follow from what is wrong now, and from what was wrong before.

An alert is notified when it appears, when it becomes worse, when it returns, and when it is over. A return is held back
only while the end before it was not notified either, and for a pause that doubles with each repetition: whoever was
notified last that something is over may rely on it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal

from msgspec import Raw, Struct
from msgspec import json as msgjson
from msgspec.structs import replace

from killswitch.engine.notice_titles import URGENT, alert_title
from killswitch.model.alert import Alert, Alerts
from killswitch.model.backoff import Backoff
from killswitch.model.decision import Notice
from killswitch.model.instant import HOUR, MINUTE, SECOND, from_micros, rfc3339, to_micros
from killswitch.model.store import decoded
from killswitch.model.words import Severity
from killswitch.render.formats import rounded_duration

PAUSES = Backoff(first=MINUTE, longest=32 * MINUTE)
"""Between two notices of an alert that comes and goes (microseconds)."""
FIRST_PAUSE = MINUTE
LATEST = 1 << 62
"""After every instant (microseconds)."""
REMEMBERED = HOUR
"""How long an alert that is over counts as having returned (microseconds)."""
MOST_FINDINGS = 500
"""Number of findings that are remembered, of those that were found last; more only while more are found."""

_GRAVITY: dict[Severity, int] = {"info": 0, "warning": 1, "page": 2}


class KnownAlert(Struct, frozen=True, omit_defaults=True):
    """An alert as it was found last, and what was notified of it. Times are in microseconds.

    `severity`: the highest that was notified since it appeared. `returns`: how often it has returned since the last
    notice. `gone`: since when it is absent; for a finding, when it was found last, to the hour. `is_resolved`: whether
    its end was notified.
    """

    alert: Alert
    since: int
    notified: int
    severity: Severity
    pause: int = FIRST_PAUSE
    returns: int = 0
    gone: int | None = None
    is_resolved: bool = False

    @property
    def is_active(self) -> bool:
        """Whether it counts as wrong now: it is found or unknown, or expected to return."""
        return self.alert.lasts and not self.is_resolved


class AlertState(Struct, frozen=True):
    """The alerts of a run and of the runs before it, by key.

    `earlier`: the severities and texts of what was notified in the hour before a start without this state, or without
    all of it. `notified`: the keys of what an earlier version notified and kept elsewhere, with their severity. Neither
    is notified again before `until` (microseconds).
    """

    known: dict[str, KnownAlert] = {}
    earlier: frozenset[tuple[Severity, str]] = frozenset()
    notified: dict[str, Severity] = {}
    until: int = 0

    @property
    def active(self) -> tuple[KnownAlert, ...]:
        """The alerts that are wrong now, the oldest first."""
        return tuple(sorted((each for each in self.known.values() if each.is_active), key=lambda each: each.since))


def advance(state: AlertState, alerts: Alerts, now: int) -> tuple[tuple[Notice, ...], AlertState]:
    """The notices of a tick at `now` (microseconds) whose parts returned `alerts`, and the state after it."""
    if (state.earlier or state.notified) and now >= state.until:
        state = AlertState(state.known)
    if not (alerts.found or state.known):
        return (), state
    present, causes = _present(state, alerts)
    notified: list[tuple[Alert, Severity, str, bool]] = []
    known = dict(state.known)
    for key, alert in present.items():
        before = known.get(key)
        text, known[key] = _appeared(alert, now) if before is None else _found(before, alert, now)
        if before is None and key in state.notified:
            known[key] = replace(known[key], severity=_graver(alert.severity, state.notified[key]))
        if text is not None and (before is not None or not _was_notified(alert, state)):
            notified.append((alert, alert.severity, text, False))
    unknown, replaced = frozenset(alerts.unknown), {key for alert in present.values() for key in alert.replaces}
    for key in [key for key in known if key not in present]:
        if known[key].is_active and key in replaced:
            known[key] = replace(known[key], gone=now, is_resolved=True)
        elif known[key].is_active and _is_unknown(key, unknown):
            known[key] = _unknown(known[key])
            continue
        text, after = _absent(known.pop(key), now)
        if text is not None:
            notified.append((after.alert, after.severity, text, True))
        if after.is_active or not after.alert.lasts or now - (after.gone or 0) < REMEMBERED:
            known[key] = after
    known = _bounded(known, present)
    return _notices(notified, causes, now), state if known == state.known else replace(state, known=known)


def _present(state: AlertState, alerts: Alerts) -> tuple[dict[str, Alert], dict[str, str]]:
    """The alerts that are found, by key, the most severe of several; and of each that is a part of another that is
    active, found or not known to be over, the key of that one. It is for the record only, unless its kind is urgent."""
    present: dict[str, Alert] = {}
    for alert in alerts.found:
        same = present.get(alert.key)
        if same is None or _GRAVITY[alert.severity] > _GRAVITY[same.severity]:
            present[alert.key] = alert
    parts = [alert for alert in present.values() if alert.part_of]
    causes: dict[str, str] = {}
    if parts:
        unknown = frozenset(alerts.unknown)
        lasting = (key for key, each in state.known.items() if each.is_active and _is_unknown(key, unknown))
        active = frozenset((*present, *lasting))
        causes = {each.key: found[0] for each in parts if (found := [key for key in each.part_of if key in active])}
        held = (present[key] for key in causes if key.partition("/")[0] not in URGENT)
        present |= {each.key: replace(each, severity="info") for each in held}
    return present, causes


def _was_notified(alert: Alert, state: AlertState) -> bool:
    """Whether its key, or its text alone or with others under its heading, is among what was notified earlier."""
    earlier, severity = state.earlier, state.notified.get(alert.key)
    if severity is not None and _GRAVITY[alert.severity] <= _GRAVITY[severity]:
        return True
    if alert.heading is None:
        return (alert.severity, alert.text) in earlier
    start = f"{alert.heading}: "
    of_heading = (text for severity, text in earlier if severity == alert.severity and text.startswith(start))
    return any(f"; {alert.text};" in f"; {text.removeprefix(start)};" for text in of_heading)


def _is_unknown(key: str, unknown: frozenset[str]) -> bool:
    """Whether the key, or a beginning of it that ends at a slash, is among those that cannot be judged."""
    starts = (key[:at] for at, letter in enumerate(key) if letter == "/")
    return "" in unknown or key in unknown or any(start in unknown for start in starts)


def _unknown(known: KnownAlert) -> KnownAlert:
    """The alert after a tick that cannot judge it: it is not known to be absent."""
    return known if known.gone is None else replace(known, gone=None)


def _appeared(alert: Alert, now: int) -> tuple[str | None, KnownAlert]:
    since = now if alert.since is None else alert.since
    return alert.text, KnownAlert(alert, since, now, alert.severity, gone=None if alert.lasts else now)


def _found(known: KnownAlert, alert: Alert, now: int) -> tuple[str | None, KnownAlert]:
    """The text to notify of an alert that is known already, or None; and the alert after it."""
    if not alert.lasts:
        merged = _with_largest(known, alert)
        if not _is_worse(known, alert):
            is_recent = merged == known.alert and now - (known.gone or 0) < REMEMBERED
            return None, known if is_recent else replace(known, alert=merged, gone=now)
        after = replace(known, alert=merged, gone=now)
        return alert.text, replace(after, notified=now, severity=_graver(alert.severity, known.severity))
    if known.is_resolved:
        _, new = _appeared(alert, now)
        return _returned(alert.text, 1, known.notified), replace(new, pause=int(PAUSES.longer(known.pause)))
    returns = known.returns + (known.gone is not None)
    after = replace(known, alert=_with_largest(known, alert), gone=None, returns=returns)
    if _is_worse(known, alert):
        return alert.text, replace(after, notified=now, severity=_graver(alert.severity, known.severity))
    if returns and now - known.notified >= known.pause:
        text = _returned(alert.text, returns, known.notified)
        return text, replace(after, notified=now, returns=0, pause=int(PAUSES.longer(known.pause)))
    return None, after


def _is_worse(known: KnownAlert, alert: Alert) -> bool:
    before = known.alert.measure
    grew = alert.measure is not None and before is not None and alert.measure > before
    return grew or _GRAVITY[alert.severity] > _GRAVITY[known.severity]


def _with_largest(known: KnownAlert, alert: Alert) -> Alert:
    """The alert with the largest measure of its life: what was notified once did not grow."""
    measures = [each.measure for each in (known.alert, alert) if each.measure is not None]
    return replace(alert, measure=max(measures, default=None))


def _graver(one: Severity, other: Severity) -> Severity:
    return max(one, other, key=_GRAVITY.__getitem__)


def _absent(known: KnownAlert, now: int) -> tuple[str | None, KnownAlert]:
    """The text of the resolving notice of an alert that is absent, or None; and the alert after it."""
    if not known.is_active:
        return None, known
    gone = now if known.gone is None else known.gone
    comes_and_goes = known.returns or known.pause > FIRST_PAUSE
    if comes_and_goes and now - gone < known.pause:
        return None, replace(known, gone=gone)
    after = replace(known, gone=gone, is_resolved=True)
    if not known.alert.resolves:
        return None, after
    if known.alert.over is not None:
        lasted = rounded_duration(from_micros(gone) - from_micros(known.since))
        return f"{known.alert.over}, after {lasted}", after
    return f"over since {_when(gone)}: {known.alert.text}", after


def _bounded(known: dict[str, KnownAlert], present: Collection[str]) -> dict[str, KnownAlert]:
    """Without the oldest findings beyond the bound; one that is found now would be notified again by the next tick."""
    findings = [(each.gone or 0, key) for key, each in known.items() if not each.alert.lasts]
    absent = sorted(each for each in findings if each[1] not in present)
    for _, key in absent[: max(0, len(findings) - MOST_FINDINGS)]:
        del known[key]
    return known


def _notices(
    notified: Iterable[tuple[Alert, Severity, str, bool]], causes: Mapping[str, str], now: int
) -> tuple[Notice, ...]:
    """One notice for each alert, and for all under one heading that began, or that ended, at this tick.

    `causes`: the key of an alert → that of the active alert of which it is a part.
    """
    joined: dict[tuple[object, ...], Notice] = {}
    for alert, severity, text, is_over in notified:
        place = alert.group if alert.heading is not None else alert.key, alert.heading, is_over
        group, before, cause = alert.group, joined.get(place), causes.get(alert.key, "")
        if before is not None:
            more, cause = _graver(severity, before.severity), cause if cause == before.part_of else ""
            joined[place] = replace(before, severity=more, text=f"{before.text}; {text}", part_of=cause)
            continue
        begun = text if alert.heading is None else f"{alert.heading}: {text}"
        key = alert.key if alert.heading is None and (is_over or (alert.lasts and alert.resolves)) else ""
        joined[place] = Notice(
            from_micros(now), group.policy, group.scope, group.kind, severity, begun, group.subject,
            title=alert_title(alert.key, is_over=is_over), alert=key, is_over=is_over and bool(key),
            part_of=cause, closing_on=alert.closing_on,
        )  # fmt: skip
    return tuple(joined.values())


def _returned(text: str, returns: int, notified: int) -> str:
    times = "once" if returns == 1 else f"{returns} times"
    return f"{text} (it has returned {times} since {_when(notified)})"


def _when(at: int) -> str:
    return rfc3339(from_micros(at // SECOND * SECOND))


def renamed_alerts(state: AlertState, renamed: Mapping[str, str]) -> AlertState:
    """The state once policies have other names: their alerts go on under these, and are not notified again."""
    if not renamed:
        return state
    moved = [_renamed(each, renamed) for each in state.known.values()]
    return replace(state, known={each.alert.key: each for each in moved})


def _renamed(known: KnownAlert, renamed: Mapping[str, str]) -> KnownAlert:
    part, *rest = known.alert.key.split("/")
    name, group = renamed.get(rest[0]) if rest else None, known.alert.group
    if name is None or group.policy not in renamed:
        return known
    key = "/".join((part, name, *rest[1:]))
    return replace(known, alert=replace(known.alert, key=key, group=replace(group, policy=name)))


_ENCODER = msgjson.Encoder(decimal_format="string")
_ENTRIES = msgjson.Decoder(dict[str, Raw])
_DECODER = msgjson.Decoder(KnownAlert)


def encode_state(state: AlertState) -> bytes:
    """The state as it is stored with a tick."""
    return _ENCODER.encode(state.known)


_ONE_NUMBER = re.compile(rb'"measure":"(-?\d+(?:\.\d+)?(?:E[+-]?\d+)?)"')
"""A measure as versions before measures of several numbers stored it."""
_POSITION = Decimal(10**15)
"""What one position left counted in such a measure of a shortfall, next to contracts."""


def _measure(stored: re.Match[bytes]) -> bytes:
    size = Decimal(stored[1].decode())
    return b'"measure":' + _ENCODER.encode((size,) if size < _POSITION else divmod(size, _POSITION))


def _decode_entry(entry: bytes) -> KnownAlert:
    return _DECODER.decode(_ONE_NUMBER.sub(_measure, entry))


def _until(known: KnownAlert, now: int) -> KnownAlert:
    if max(known.since, known.notified, known.gone or 0) <= now:
        return known
    gone = None if known.gone is None else min(known.gone, now)
    return replace(known, since=min(known.since, now), notified=min(known.notified, now), gone=gone)


def read_state(
    blob: bytes | None,
    earlier: Iterable[Notice] = (),
    now: int = LATEST,
    notified: Mapping[str, Severity] | None = None,
) -> AlertState:
    """The stored state, as far as this version can decode it, for a start at `now` (microseconds).

    If there is none, or not all of it can be decoded, what an `earlier` notice of the last hour reported counts as
    notified for the first minute: some parts take a few passes to find what is wrong. So do the keys of `notified`, of
    which an earlier version kept elsewhere that it had notified them. Times after the start come from a clock that was
    ahead: they count as the start, since pauses would otherwise last until that time.
    """
    entries = decoded(_ENTRIES.decode, blob)
    read = {key: decoded(_decode_entry, bytes(entry)) for key, entry in (entries or {}).items()}
    known = {key: _until(each, now) for key, each in read.items() if each is not None}
    elsewhere = {key: severity for key, severity in (notified or {}).items() if key not in known}
    if entries is not None and len(known) == len(entries):
        return AlertState(known, notified=elsewhere, until=now + FIRST_PAUSE if elsewhere else 0)
    recent = (notice for notice in earlier if now - to_micros(notice.as_of) < REMEMBERED)
    texts = frozenset((notice.severity, notice.text) for notice in recent)
    return AlertState(known, texts, elsewhere, now + FIRST_PAUSE)
