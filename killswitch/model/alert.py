"""Alerts: what is wrong now, as every part of the program returns it at each tick.

An alert lasts for as long as its part returns it. What is notified of it, and when, `killswitch.engine.alerts` decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from msgspec import Struct

from killswitch.model.decision import NoticeKind
from killswitch.model.words import SHADOW, Severity


class NoticeGroup(Struct, frozen=True, omit_defaults=True):
    """The policy, scope, kind and subject of a notice: routes match them, and repetitions of one group are counted."""

    policy: str
    scope: str
    kind: NoticeKind = "warning"
    subject: str | None = None


RUNNER = NoticeGroup("runner", "runner")
"""The group of everything that is wrong with the program itself."""
SHADOW_SETS = NoticeGroup(SHADOW, SHADOW)
"""The group of what sets in shadow would have done differently: only routes that name it match its notices."""


class Alert(Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong now.

    `key` identifies it for as long as it lasts, also in other versions of this program: it consists of stable
    identifiers, separated by slashes, and never of text. `over` begins the resolving notice; None: the text of the
    alert is repeated. `since`: when it began (microseconds), if its part knows that better than the tick that found it.
    `measure`: its size, where an alert that grows is notified again; of several numbers, the first that differs
    decides. `lasts`: false for a finding, which is notified once and never resolved, because its part does not look for
    its end. `resolves`: false where the part notifies the end itself. `heading`: the title above the text; notices of
    a tick with one heading are one, so that forty positions of one account are one page. `replaces`: keys of alerts
    that have become this one: they are over, and nothing says so. `part_of`: keys of alerts of which this may be a
    consequence, as an unknown trigger is of an account that cannot be read: while one of them is active, this alert is
    recorded and sent to nobody, so that one outage is one page; if it outlasts them, it is notified then. An alert of
    an urgent kind is sent at once all the same, as an update of the page about its cause. `closing_on`: the account, of
    what is wrong with a close or with an order of one.
    """

    key: str
    severity: Severity
    text: str
    group: NoticeGroup = RUNNER
    over: str | None = None
    since: int | None = None
    measure: tuple[Decimal, ...] | None = None
    lasts: bool = True
    resolves: bool = True
    heading: str | None = None
    replaces: tuple[str, ...] = ()
    part_of: tuple[str, ...] = ()
    closing_on: str = ""

    @property
    def full_text(self) -> str:
        """The text under its heading."""
        return self.text if self.heading is None else f"{self.heading}: {self.text}"


class Alerts(Struct, frozen=True):
    """What a part finds wrong now.

    `unknown`: the keys that it cannot judge now, or what they begin with up to a slash, such as those of an account
    that was not polled; "" is every key. An alert that is neither found nor unknown is over.
    """

    found: tuple[Alert, ...] = ()
    unknown: tuple[str, ...] = ()

    def __add__(self, other: Alerts) -> Alerts:
        return Alerts(self.found + other.found, self.unknown + other.unknown)

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the alerts, each once."""
        headings: dict[tuple[str, str | None], list[str]] = {}
        for alert in self.found:
            headings.setdefault((alert.heading or alert.text, alert.heading), []).append(alert.text)
        return tuple(
            texts[0] if heading is None else f"{heading}: {'; '.join(dict.fromkeys(texts))}"
            for (_, heading), texts in headings.items()
        )


NO_ALERTS = Alerts()


def alert_if(key: str, text: str | None) -> Alerts:
    """One page of the runner under `key`; none if there is no text."""
    return NO_ALERTS if text is None else Alerts((Alert(key, "page", text),))


def together(parts: Iterable[Alerts]) -> Alerts:
    """The alerts of several parts, in their order."""
    return sum(parts, NO_ALERTS)
