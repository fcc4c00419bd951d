"""All mutants."""

from __future__ import annotations

from tests.corpus.responses import IN_RESPONSES
from tests.corpus.sets import IN_SETS
from tests.corpus.stages import IN_STAGES
from tests.corpus.triggers import IN_TRIGGERS

MUTANTS = (*IN_TRIGGERS, *IN_STAGES, *IN_RESPONSES, *IN_SETS)
