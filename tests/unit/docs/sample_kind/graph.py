"""`set_mark`: leave a mark in the store."""

from __future__ import annotations

from killswitch.graph.actions.kind import ActionKind
from killswitch.graph.nodes import Action
from killswitch.policy.schema import actions


class SetMark(Action, frozen=True):
    text: str


KIND: ActionKind[actions.SetMark, SetMark] = ActionKind(  # type: ignore[name-defined]  # the sample's own schema
    key="set_mark",
    node=SetMark,
    effects=("mark",),
    is_reversible=False,
    needs_the_book=False,
    resolve=lambda written, _stage, _path, _around: SetMark(written.text),
    text=lambda mark, _signals: f"set the mark {mark.text}",
)
