"""Public signatures of `sparse` and `models` name their types: never `Any`, and no function that nobody can search for."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src/wavespark"
FILES = [*sorted((SOURCE / "sparse").rglob("*.py")), *sorted((SOURCE / "models").rglob("*.py"))]
OPEN = {"__init__", "__call__", "__getitem__", "__add__", "__mul__", "__sub__", "__truediv__"}


def public_functions(tree: ast.AST, hidden: bool = False) -> list[tuple[str, ast.FunctionDef]]:
    """Functions and methods that a user can call, with their names; what stands inside functions is private."""
    functions = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            if not hidden and (not node.name.startswith("_") or node.name in OPEN):
                functions.append((node.name, node))
        elif isinstance(node, ast.ClassDef):
            functions += public_functions(node, hidden or node.name.startswith("_"))
        else:
            functions += public_functions(node, hidden)
    return functions


def untyped(source: str) -> list[str]:
    """`name: annotation` of every argument and result of a public function that says `Any` or nothing."""
    wrong = []
    for name, function in public_functions(ast.parse(source)):
        arguments = function.args
        given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        places = [(a.arg, a.annotation) for a in given if a is not None and a.arg not in {"self", "cls"}]
        for argument, annotation in [*places, ("return", function.returns)]:
            text = "nothing" if annotation is None else ast.unparse(annotation)
            if annotation is None or "Any" in {n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)}:
                wrong.append(f"{name}({argument}): {text}")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_public_signature_says_any(path: Path) -> None:
    assert not untyped(path.read_text(encoding="utf-8"))


def test_the_check_sees_what_it_looks_for() -> None:
    assert untyped("def f(x: Any) -> dict[str, Any]: ...") == ["f(x): Any", "f(return): dict[str, Any]"]
    assert untyped("class A:\n    def g(self, y): ...") == ["g(y): nothing", "g(return): nothing"]
    assert not untyped("class _A:\n    def g(self, y: Any): ...\ndef _h(x: Any): ...\ndef f(x: int) -> None: ...")


def test_no_function_is_called_by_an_underscore_alone() -> None:
    named = [
        f"{path.name}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == "_"
    ]
    assert not named
