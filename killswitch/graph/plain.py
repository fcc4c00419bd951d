"""The plainest expression, `equity.drawdown("1h") < 0.02`, read without CEL.

Loading CEL costs more than compiling all shipped policies, and a reset is mostly just this. Whatever is written in
any other way, or has a mistake in it, is left to CEL; what is read here means the same there, which a test holds.
"""

from __future__ import annotations

import re
from typing import cast

from killswitch.graph.columns import Columns
from killswitch.graph.naming import signal_problem
from killswitch.graph.nodes import Compare, ComparisonOp, Number, SignalRead, SignalRef
from killswitch.graph.problems import Problem
from killswitch.graph.windows import window_of
from killswitch.signals.catalogue import BY_NAME, Level

_PLAIN = r'\s*([a-z_]+\.[a-z_]+)(?:\(\s*"([0-9a-z.]+)"\s*\))?\s*(<=|>=|<|>)\s*(-?[0-9]{1,15}(?:\.[0-9]{1,15})?)\s*'


def plain_condition(text: str, level: Level, columns: Columns) -> Compare | None:
    """The comparison of one signal with one number that `text` is; None for anything else."""
    match = re.fullmatch(_PLAIN, text, re.ASCII)
    if match is None or signal_problem(match[1], level) is not None:
        return None
    spec = BY_NAME[match[1]]
    window = window_of(spec, match[2])
    if spec.type != "number" or isinstance(window, Problem):
        return None
    column = columns.of(SignalRef(spec.name, window))
    return Compare(cast("ComparisonOp", match[3]), SignalRead(column), Number(float(match[4])))
