"""The triggers of a policy: a signal compared with a number, or an expression.

The arguments of signals are keys of a threshold trigger. They come from the catalogue: an argument that a signal
declares is a key here, with its type, its description and its JSON Schema.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Discriminator, Field, StrictBool, Tag, create_model

from killswitch.model.instant import SECOND
from killswitch.policy.schema.cross_key_checks import COMPARISONS as COMPARISONS
from killswitch.policy.schema.part import Part
from killswitch.policy.schema.scalars import (
    AT_ONCE,
    Confirmation,
    Duration,
    Expression,
    Fraction,
    Number,
    ProperShare,
    Quantity,
    Text,
    Threshold,
    Word,
)
from killswitch.signals.arguments import Argument
from killswitch.signals.catalogue import ARGUMENTS

DEFAULT_GRACE = 60 * SECOND

OnUnknown = Literal["hold", "trip", "warn"]

WhenUnknown = Annotated[
    OnUnknown,
    Field(
        description=(
            "What unknown data does: `hold` keeps what the trigger was and its confirmation clock, `trip` counts "
            "as true, `warn` counts as false and notifies."
        )
    ),
]
Confirming = Annotated[
    Confirmation,
    Field(
        description=(
            "How long the condition must be true at each evaluation: a duration, or scheduled ticks. Left out: at once."
        )
    ),
]
Grace = Annotated[
    Duration, Field(description="How long the condition may be unknown before that is reported. Left out: 60s.")
]


class _Arguments(Part):
    """The arguments of a signal as keys; `_with_arguments` adds them."""

    def given(self) -> Iterator[tuple[str, int | Decimal | str | Quantity]]:
        """The keys of arguments that are written, with their values."""
        for key in ARGUMENTS:
            if (value := getattr(self, key)) is not None:
                yield key, value


def _annotation(arguments: tuple[Argument, ...]) -> Any:
    """The type of a key that several signals may declare, with the words of all of them."""
    match arguments[0].kind:
        case "duration":
            return Duration
        case "fraction":
            return Fraction
        case "number":
            return Number
        case "money":
            return Threshold
        case "word" | "name" | "reference":  # the signal decides which words it takes
            return Word
        case "time" | "zone" | "days" | "labels":  # the graph checks their form
            return Word


P = TypeVar("P", bound=_Arguments)


def _with_arguments(part: type[P]) -> type[P]:
    """The part with a key for each argument of a signal."""
    keys: dict[str, Any] = {
        key: (_annotation(arguments) | None, Field(None, description=arguments[0].meaning))
        for key, arguments in ARGUMENTS.items()
    }
    return create_model(part.__name__, __base__=part, __doc__=part.__doc__, __module__=__name__, **keys)


@_with_arguments
class SignalOf(_Arguments):
    """A signal with its arguments."""

    signal: Text
    """A signal of the catalogue; `ksctl schema signals` lists it."""


class Adaptive(Part):
    """A threshold that is computed, slowly and between bounds. It does not change while a stage of the policy is
    latched or cools down, and while the signal has reached half of it."""

    quantile: ProperShare | None = None
    """The quantile of the signal's own past, such as 99%: of the maxima of blocks as long as its window. The threshold
    moves by at most 10% of itself a day, at 00:00 UTC. Left out: there is `times`."""
    history: Duration | None = None
    """How far back the quantile looks. Left out: there is no quantile."""
    times: Number | None = None
    """The multiple of the signal `of`, computed every 15 minutes. Left out: there is a quantile."""
    of: SignalOf | None = None
    """The signal that the threshold is a multiple of, such as the expected move. Left out: there is a quantile."""
    floor: Threshold
    """The least threshold."""
    cap: Threshold
    """The greatest threshold."""
    initial: Threshold
    """The threshold while it cannot be computed: until enough is known, and of a quantile also once an outage has left
    too few samples."""


def threshold_form(written: object) -> str:
    """The form of a threshold: `adaptive` for a mapping, else `fixed`."""
    return "adaptive" if isinstance(written, dict | Adaptive) else "fixed"


RisingThreshold = Annotated[
    Annotated[Threshold, Tag("fixed")] | Annotated[Adaptive, Tag("adaptive")], Discriminator(threshold_form)
]
"""A threshold that a value rises to: a number, or one that is computed."""


@_with_arguments
class ThresholdTrigger(_Arguments):
    """A signal compared with a number: exactly one of `at_least`, `at_most`, `above`, `below`, or `is` for a signal
    that is true or false. The arguments of the signal are keys, too; the page of signals says which it takes."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [key]} for key in (*COMPARISONS, "is")]})

    signal: Text
    """A signal of the catalogue; `ksctl schema signals` lists it."""
    at_least: RisingThreshold | None = None
    """True at or above this value."""
    at_most: Threshold | None = None
    """True at or below this value."""
    above: RisingThreshold | None = None
    """True above this value."""
    below: Threshold | None = None
    """True below this value."""
    is_: Annotated[StrictBool | None, Field(alias="is")] = None
    """True if the boolean signal is true."""
    warn_at: tuple[ProperShare, ...] = ()
    """Shares of the threshold at which a warning is sent, once until the value is below 90% of the share for 5 min,
    such as [60%, 80%]. A warning neither pages nor fires. Left out: none."""
    confirm: Confirming = AT_ONCE
    on_unknown: WhenUnknown
    grace: Grace = DEFAULT_GRACE
    formerly: Text | None = None
    """The name that the trigger had in the set before: its clock goes on. Left out: it had this name, or is new."""

    @property
    def comparison(self) -> str | None:
        """The comparison that is written, the first of several; None if it is unreadable."""
        written = (key for key in COMPARISONS if getattr(self, key) is not None)
        return next(written, None if self.is_ is None else "is")


class ExpressionTrigger(Part):
    """A condition written in CEL."""

    when: Expression
    confirm: Confirming = AT_ONCE
    on_unknown: WhenUnknown
    grace: Grace = DEFAULT_GRACE
    formerly: Text | None = None
    """The name that the trigger had in the set before: its clock goes on. Left out: it had this name, or is new."""


class Override(Part):
    """What a variant changes in a trigger; keys that are left out keep the policy's values."""

    at_least: Threshold | None = None
    """For a trigger with `at_least`."""
    at_most: Threshold | None = None
    """For a trigger with `at_most`."""
    above: Threshold | None = None
    """For a trigger with `above`."""
    below: Threshold | None = None
    """For a trigger with `below`."""
    confirm: Confirmation | None = None
    """How long the condition must be true. Left out: the policy's value."""
    grace: Duration | None = None
    """How long the condition may be unknown. Left out: the policy's value."""


def trigger_form(written: object) -> str:
    """The form of a trigger: `expression` if `when` is given without `signal`, else `threshold`."""
    is_expression = isinstance(written, dict) and "when" in written and "signal" not in written
    return "expression" if is_expression else "threshold"


Trigger = Annotated[
    Annotated[ThresholdTrigger, Tag("threshold")] | Annotated[ExpressionTrigger, Tag("expression")],
    Discriminator(trigger_form),
]
