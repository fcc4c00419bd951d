"""The shape of the code: short functions, few collaborators, one meaning per name, verbs that engineers search for."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from io import StringIO
from itertools import combinations
from pathlib import Path
from tokenize import COMMENT, generate_tokens

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


@cache
def classes(repository: Path) -> list[tuple[str, ast.ClassDef]]:
    """Each class of the tree with the path of its module."""
    trees = modules(repository).items()
    return [(path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


@cache
def functions(repository: Path) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Each function and method of the tree with the path of its module."""
    trees = modules(repository).items()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [(path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]


def is_value(node: ast.ClassDef) -> bool:
    """Whether a class holds data only: an enum, a struct, a part of a document."""
    bases = " ".join(map(ast.unparse, node.bases))
    return any(kind in bases for kind in ("Enum", "TypedDict", "Struct", "Part", "BaseModel"))


def constructor(node: ast.ClassDef) -> list[tuple[str, ast.expr | None]]:
    """What a class is made with: the parameters of `__init__`."""
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


PRIVATE = re.compile(r"_[a-zA-Z]\w*")
PRIVATE_PATH = re.compile(r"killswitch\w*(\.\w+)*\._[a-zA-Z][\w.]*")
NO_PRIVATE = frozenset({"os._exit"})
"""What the standard library documents in spite of its name."""


def private_names(tree: ast.Module) -> Iterator[str]:
    """Private names of other modules and objects: as an attribute, in an import, and as a text that is looked up."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=owner, attr=name) if PRIVATE.fullmatch(name):
                whole = ast.unparse(node)
                if ast.unparse(owner) not in ("self", "cls", "super()") and whole not in NO_PRIVATE:
                    yield whole
            case ast.ImportFrom(module=str(module), names=found):
                yield from (f"{module}.{each.name}" for each in found if PRIVATE.fullmatch(each.name))
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]
            ):
                if PRIVATE.fullmatch(name):
                    yield name
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[_, ast.Constant(value=str(name)), *_]):
                if PRIVATE.fullmatch(name):
                    yield name
            case ast.Constant(value=str(text)) if PRIVATE_PATH.fullmatch(text):
                yield text
            case _:
                pass


def test_tests_use_no_private_name(repository: Path) -> None:
    """They hold behaviour through what is public, so that the inside of a module can change without them."""
    files = sorted((repository / "tests").rglob("*.py"))
    assert len(files) > 400
    found = {
        file.relative_to(repository).as_posix(): names
        for file in files
        if (names := list(private_names(ast.parse(file.read_text(encoding="utf-8")))))
    }
    assert found == {}


def test_the_check_of_private_names_finds_each_form() -> None:
    """An attribute, an import, a name that is looked up, and the path of a patch; own names of a class are its own."""
    product = "killswitch"
    text = (
        "from PRODUCT.store import _rows\nstore._recover(1)\ngetattr(venue, '_base')\n"
        "patch.setattr(module, '_stamps', 1)\npatch.setattr('PRODUCT.gate.locks.Locks._read', 1)\n"
        "self._own\nsuper()._report()\nos._exit(1)\nsys.modules['x']._SHARED\n"
    )
    assert sorted(private_names(ast.parse(text.replace("PRODUCT", product)))) == [
        "_base", "_stamps", f"{product}.gate.locks.Locks._read", f"{product}.store._rows", "store._recover",
        "sys.modules['x']._SHARED",
    ]  # fmt: skip


SUPPRESSION = re.compile(r"#\s*(?:type:\s*ignore(?:\[[\w, -]*\])?|noqa(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?)")
"""A comment that suppresses a check of types or of style."""


def unreasoned(source: str) -> list[str]:
    """Each comment that suppresses a check and says nothing else."""
    if not SUPPRESSION.search(source):  # to read the tokens of every file takes long
        return []
    comments = [each.string for each in generate_tokens(StringIO(source).readline) if each.type == COMMENT]
    return [
        text for text in comments if SUPPRESSION.search(text) and not re.search(r"[a-z]", SUPPRESSION.sub("", text))
    ]


def test_every_suppression_has_its_reason_in_its_line(repository: Path) -> None:
    """A reader sees why a checker is wrong there, and when the suppression can go."""
    folders = ("killswitch", "adapters", "tools", "tests")
    files = [file for folder in folders for file in sorted((repository / folder).rglob("*.py"))]
    found = {file.relative_to(repository).as_posix(): unreasoned(file.read_text(encoding="utf-8")) for file in files}
    assert len(found) > 1000
    assert {name: comments for name, comments in found.items() if comments} == {}, "write the reason behind each"


def test_the_check_of_suppressions_finds_each_form() -> None:
    """Of types and of style, bare and together; a text that only looks like one is none."""
    kept = ["a  # type: ignore[misc] # one of two", "b  # noqa: E501 - a table", 'c = "# noqa"', "d  # a reason"]
    lacking = [
        "e  # type: ignore",
        "f  # type: ignore[arg-type]",
        "g  # noqa: E501, S101",
        "h  # type: ignore[x] # noqa: A1",
    ]
    assert unreasoned("\n".join((*kept, *lacking))) == [text.partition("  ")[2] for text in lacking]
