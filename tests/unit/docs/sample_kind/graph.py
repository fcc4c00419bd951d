"""`set_mark`: leave a mark in the store."""

from __future__ import annotations

from killswitch.graph.actions.kind import ActionKind
from killswitch.graph.freezing import freeze, frozen_from
from killswitch.graph.nodes import Action
from killswitch.policy.schema import actions


@frozen_from(actions.SetMark)  # type: ignore[attr-defined]  # the sample's own schema
class SetMark(Action, frozen=True):
    text: str


KIND: ActionKind[actions.SetMark, SetMark] = ActionKind(  # type: ignore[name-defined]  # the sample's own schema
    key="set_mark",
    node=SetMark,
    effects=("mark",),
    is_reversible=False,
    needs_the_book=False,
    resolve=lambda written, _stage, _path, _around: freeze(written, SetMark),
    text=lambda mark, _signals: f"set the mark {mark.text}",
)
