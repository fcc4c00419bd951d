"""No module uses the orders, cancels and lock of a decision as if these were all: it uses its effects."""

from __future__ import annotations

import ast
from pathlib import Path

from killswitch.graph.actions.registry import ACTIONS

KEYS = {"intents", "cancels", "lock"}

ABOUT_ONE_KIND = {
    "killswitch/planning/targets/merge.py": "which decision's order a position gets",
    "killswitch/planning/owners.py": "the orders of a strategy, which close its own part of a position",
    "killswitch/planning/hedge/hedge_opening.py": "the orders that open a hedge",
    "killswitch/planning/hedge/uncloseable.py": "the orders that the venue did not let through",
    "killswitch/planning/lock_breach.py": "what our own orders open",
    "killswitch/planning/operator/plan_check.py": "the orders and cancels of a saved plan, which are planned again",
    "killswitch/execution/state/intents.py": "the orders of an account, by the index of their intents",
    "killswitch/execution/state/account_job.py": "the orders and cancels that an account works off",
    "killswitch/runner/locks/lock_lifecycle.py": "the locks that are called for",
    "killswitch/incident/record/closed_positions.py": "what became of the positions that orders reduce",
    "killswitch/incident/report/exports.py": "what an incident did, by kinds, in a record for compliance",
    "killswitch/incident/record/decision_basis.py": "what each order is measured against",
    "killswitch/operations/progress.py": "how far the orders have come",
    "killswitch/lab/alternatives.py": "the same cut by other orders",
    "killswitch/cli/operate/preview.py": "whether a close by hand has an order or a cancel to send",
    "killswitch/operations/comparison_witnesses.py": "what two sets do in one scenario, by kinds",
    "killswitch/planning/firing.py": "the price and the cost that the orders of a level are expected to have",
    "killswitch/operations/pages/levels.py": "how many resting orders a level cancels, which have no row of their own",
    "killswitch/operations/pages/plan_comparison.py": "how many orders each of two sets sends",
    "killswitch/operations/pages/shadow.py": "the orders of a shadow set, of which the first are shown",
    "killswitch/operations/plan_comparison.py": "orders by their amounts, since their ids differ between two sets",
    "killswitch/operations/preview.py": "how many resting orders a level cancels",
    "killswitch/operations/review/arrival.py": "the orders of an arrival, of which the first are named",
    "killswitch/runner/shadow/comparison.py": "how the orders, cancels and locks of two sets differ, by kinds",
    "killswitch/runner/shadow/evaluation.py": "how many orders a shadow set would send",
    "killswitch/scenario/comparison.py": "each expectation is about one kind: orders, cancels or a lock",
    "killswitch/scenario/resolve.py": "the keys of an expectation, by their kinds",
}
"""Module → the one kind of effect that is its very subject."""

NO_DECISIONS = {
    "orders", "cancels", "lock", "outcome", "event", "opening", "unwound", "suspected", "found", "read_file(path)",
}  # fmt: skip
"""What else has such an attribute: the effects themselves by their names, unwound targets, suspicions, lock files,
the outcome of a command, its event, and the opening of an incident."""

KINDS = ("killswitch/planning/actions/", "killswitch/execution/effects/")
"""Folders with one file for each kind of action and of effect, which is about its own effects."""

PACKAGES_WITHOUT = ("killswitch/model/", "killswitch/journal/", "killswitch/gate/", "killswitch/store/")
"""The model declares the kinds, the journal has entries about locks, gate and store know lock files and locks of
threads. None of them has a decision."""


def accessed(source: str) -> list[str]:
    """`receiver.attribute` of every access that may be one to a decision."""
    return [
        f"{ast.unparse(node.value)}.{node.attr}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and node.attr in KEYS
        and ast.unparse(node.value) not in NO_DECISIONS
        and not (ast.unparse(node.value) == "self" and node.attr == "lock")
    ]


def test_only_code_about_one_kind_accesses_that_kind(repository: Path) -> None:
    """Code that needs what a decision does, on which accounts, or whether anything, uses its effects."""
    modules = {path.relative_to(repository).as_posix(): path for path in (repository / "killswitch").rglob("*.py")}
    found = {
        name: accesses
        for name, path in modules.items()
        if not name.startswith((*KINDS, *PACKAGES_WITHOUT)) and (accesses := accessed(path.read_text(encoding="utf-8")))
    }
    assert {name: accesses for name, accesses in found.items() if name not in ABOUT_ONE_KIND} == {}
    assert found.keys() == ABOUT_ONE_KIND.keys(), "the list names no module that does not need it"


def test_an_access_is_found_for_any_name_of_the_decision() -> None:
    """By attribute, not by the name of a variable."""
    assert accessed("traded = [each.account for each in stored.decision.intents]") == ["stored.decision.intents"]
    assert accessed("if d.lock or d.cancels: pass") == ["d.lock", "d.cancels"]
    assert accessed("for intent in orders.intents: self.lock.acquire()") == []


def isinstance_calls(source: str, names: set[str]) -> list[str]:
    """The calls of `isinstance` for one of these classes."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "isinstance"
        and names & {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
    ]


def test_no_module_tests_for_the_class_of_an_action(repository: Path) -> None:
    """Except the files of the kinds themselves: everything else goes through the registries."""
    names = {kind.node.__name__ for kind in ACTIONS}
    assert names >= {"LockTrading", "CancelOrders", "Close"}
    assert isinstance_calls("isinstance(a, Close | CancelOrders)", names) == ["isinstance(a, Close | CancelOrders)"]
    found = {
        path.relative_to(repository).as_posix(): calls
        for path in (repository / "killswitch").rglob("*.py")
        if path.parent.name != "actions" and (calls := isinstance_calls(path.read_text(encoding="utf-8"), names))
    }
    assert found == {}
