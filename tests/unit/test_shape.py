"""The shape of the code: short functions, few collaborators, one meaning per name, verbs that engineers search for."""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from itertools import combinations
from pathlib import Path

MOST_LINES, MOST_COLLABORATORS = 60, 8

DIALECT = frozenset(
    [
        "told",
        "tells",
        "telling",
        "said",
        "says",
        "stand",
        "stands",
        "standing",
        "stood",
        "took",
        "taken",
        "word",
        "learn",
        "learned",
        "news",
        "heard",
        "hand",
        "hands",
    ]
)
"""Words that once had many meanings; the field has its own term for each of them."""

SAME_MEANING = (
    ("killswitch/policy/schema", "killswitch/graph"),  # a part of a document, and what it is compiled to
    ("killswitch/policy/schema", "killswitch/model"),  # a part of a document, and the record that adapters see
    ("adapters/killswitch_alpaca", "adapters/killswitch_ccxt"),  # the same job in two venue plug-ins
)

VALUES = frozenset(
    [
        "str",
        "int",
        "float",
        "bool",
        "bytes",
        "Decimal",
        "datetime",
        "timedelta",
        "date",
        "Path",
        "object",
        "None",
        "Any",
        "Fraction",
        "Pattern",
        "tuple",
        "list",
        "dict",
        "set",
        "frozenset",
        "Mapping",
        "Sequence",
        "Iterable",
        "Iterator",
        "Collection",
        "MutableMapping",
        "Literal",
        "type",
        "deque",
        "InitVar",
        "KW_ONLY",
    ]
)


@cache
def modules(repository: Path) -> dict[str, ast.Module]:
    """Every module of the program and its adapters, parsed, by its path."""
    files = [file for folder in ("killswitch", "adapters") for file in sorted((repository / folder).rglob("*.py"))]
    return {file.relative_to(repository).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def classes(repository: Path) -> list[tuple[str, ast.ClassDef]]:
    """Each class of the tree with the path of its module."""
    trees = modules(repository).items()
    return [(path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def functions(repository: Path) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Each function and method of the tree with the path of its module."""
    trees = modules(repository).items()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [(path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]


def is_value(node: ast.ClassDef) -> bool:
    """Whether a class holds data only: an enum, a record, a part of a document, a frozen dataclass without awaits."""
    bases = " ".join(map(ast.unparse, node.bases))
    if any(kind in bases for kind in ("Enum", "TypedDict", "NamedTuple", "Part", "BaseModel")):
        return True
    made_by = " ".join(map(ast.unparse, (*node.decorator_list, *node.keywords)))  # a dataclass or a Struct
    return "frozen=True" in made_by and not any(isinstance(each, ast.AsyncFunctionDef) for each in node.body)


def constructor(node: ast.ClassDef) -> list[tuple[str, ast.expr | None]]:
    """What a class is made with: parameters of `__init__`, or the fields of a dataclass."""
    if any("dataclass" in ast.unparse(each) for each in node.decorator_list):
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
        return [
            (ast.unparse(each.target), each.annotation)
            for each in fields
            if "ClassVar" not in ast.unparse(each.annotation)
            and "init=False" not in (ast.unparse(each.value) if each.value else "")
        ]
    made = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    return [
        (each.arg, each.annotation)
        for one in made
        for each in (*one.args.posonlyargs, *one.args.args, *one.args.kwonlyargs)
        if each.arg != "self"
    ]


def names(annotation: ast.expr | None) -> set[str]:
    """The names that an annotation mentions."""
    if annotation is None:
        return {"unannotated"}
    return {
        each.id if isinstance(each, ast.Name) else each.attr
        for each in ast.walk(annotation)
        if isinstance(each, ast.Name | ast.Attribute)
    }


def test_no_function_is_longer_than_a_screen(repository: Path) -> None:
    """At most 60 lines, with docstring and signature."""
    lengths = {f"{path}:{node.name}": (node.end_lineno or 0) - node.lineno + 1 for path, node in functions(repository)}
    assert len(lengths) > 3000
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_class_has_more_than_eight_collaborators(repository: Path) -> None:
    """Collaborators are constructor arguments that have behaviour: objects and callables, no values or records."""
    values = {node.name for _, node in classes(repository) if is_value(node)}
    behaving = {node.name for _, node in classes(repository) if not is_value(node)}
    aliases = {
        target.id
        for tree in modules(repository).values()
        for each in tree.body
        if isinstance(each, ast.Assign) and "Callable" not in ast.unparse(each.value)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    data = (values | VALUES | aliases) - behaving
    found = {
        f"{path}:{node.name}": [name for name, annotation in constructor(node) if names(annotation) - data]
        for path, node in classes(repository)
    }
    assert max(map(len, found.values())) > 3, "this test sees no collaborators at all"
    assert {name: many for name, many in found.items() if len(many) > MOST_COLLABORATORS} == {}


def test_a_class_name_has_one_meaning(repository: Path) -> None:
    """A name is defined once, except for a document's part and its node, and for one job in two venue plug-ins."""
    places: dict[str, list[str]] = defaultdict(list)
    for path, node in classes(repository):
        if not node.name.startswith("_"):
            places[node.name].append(path)

    found = {
        name: paths
        for name, paths in places.items()
        if not all(have_one_meaning(first, second) for first, second in combinations(paths, 2))
    }
    assert found == {}


def have_one_meaning(first: str, second: str) -> bool:
    """Whether two modules may define a class of the same name."""
    return any(
        (first.startswith(one) and second.startswith(other)) or (first.startswith(other) and second.startswith(one))
        for one, other in SAME_MEANING
    )


def test_function_names_are_terms_of_the_field(repository: Path) -> None:
    """No function is named after telling, standing or taking; the API of the conformance tests keeps its names."""
    named = {f"{path}:{node.name}" for path, node in functions(repository) if DIALECT & set(node.name.split("_"))}
    assert sorted(name for name in named if not name.startswith("killswitch/conformance/")) == []
