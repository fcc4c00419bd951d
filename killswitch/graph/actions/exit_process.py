"""`exit_process`: exit the process of the run."""

from __future__ import annotations

from killswitch.graph.actions.kind import ActionKind
from killswitch.graph.nodes import Action
from killswitch.policy.schema import actions


class ExitProcess(Action, frozen=True):
    pass


KIND: ActionKind[actions.ExitProcess, ExitProcess] = ActionKind(
    key="exit_process",
    node=ExitProcess,
    effects=("process_exit",),
    is_reversible=False,
    needs_the_book=False,
    resolve=lambda _written, _stage, _path, _around: ExitProcess(),
    text=lambda _action, _signals: "exit the process",
)
