"""The triggers of a policy: a signal compared with a number, or an expression.

The arguments of signals are keys of a threshold trigger. They come from the catalogue: an argument that a signal
declares is a key here, with its type, its description and its JSON Schema.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

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


class ThresholdTrigger(Part):
    """A signal compared with a number: exactly one of `at_least`, `at_most`, `above`, `below`, or `is` for a signal
    that is true or false. The arguments of the signal are keys, too; the page of signals says which it takes."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [key]} for key in (*COMPARISONS, "is")]})

    signal: Text
    """A signal of the catalogue; `ksctl schema signals` lists it."""
    at_least: Threshold | None = None
    """True at or above this value."""
    at_most: Threshold | None = None
    """True at or below this value."""
    above: Threshold | None = None
    """True above this value."""
    below: Threshold | None = None
    """True below this value."""
    is_: Annotated[StrictBool | None, Field(alias="is")] = None
    """True if the signal, which is true or false, is so."""
    confirm: Confirming = AT_ONCE
    on_unknown: WhenUnknown
    grace: Grace = DEFAULT_GRACE

    @property
    def comparison(self) -> str | None:
        """The comparison that is written, the first of several; None if it is unreadable."""
        written = (key for key in COMPARISONS if getattr(self, key) is not None)
        return next(written, None if self.is_ is None else "is")

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


if TYPE_CHECKING:
    _WithArguments = ThresholdTrigger
else:
    _WithArguments = create_model(
        ThresholdTrigger.__name__,
        __base__=ThresholdTrigger,
        __doc__=ThresholdTrigger.__doc__,
        __module__=__name__,
        **{
            key: (_annotation(arguments) | None, Field(None, description=arguments[0].meaning))
            for key, arguments in ARGUMENTS.items()
        },
    )
    ThresholdTrigger = _WithArguments


class ExpressionTrigger(Part):
    """A condition written in CEL."""

    when: Expression
    confirm: Confirming = AT_ONCE
    on_unknown: WhenUnknown
    grace: Grace = DEFAULT_GRACE


def trigger_form(written: object) -> str:
    """The form of a trigger: `expression` if `when` is given without `signal`, else `threshold`."""
    is_expression = isinstance(written, dict) and "when" in written and "signal" not in written
    return "expression" if is_expression else "threshold"


Trigger = Annotated[
    Annotated[ThresholdTrigger, Tag("threshold")] | Annotated[ExpressionTrigger, Tag("expression")],
    Discriminator(trigger_form),
]
