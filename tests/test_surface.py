"""The public surface: names resolve, docstrings and cards are complete, floors import only downwards."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from pathlib import Path

import pytest

from nni_supernet_ext.testing.cases import CASES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nni_supernet_ext"
METHOD_FOLDERS = ("paths", "data", "weights", "objectives", "callbacks")
PUBLIC = (
    *METHOD_FOLDERS,
    "core",
    "functional",
    "spaces",
    "benchmarks",
    "strategies",
    "recipes",
    "plots",
    "diagnostics",
    "testing",
)
FLOORS = {
    "errors": -3,
    "_integers": -2,
    "_values": -2,
    "_compat": -1,
    "functional": 0,
    "core": 1,
    "paths": 2,
    "data": 2,
    "weights": 2,
    "objectives": 2,
    "callbacks": 2,
    "spaces": 2,
    "benchmarks": 2,
    "plots": 2,
    "diagnostics": 2,
    "recording": 2.5,
    "trial": 4,
    "strategies": 3,
    "recipes": 4,
    "testing": 5,
}


def _public(folders=PUBLIC):
    for folder in folders:
        module = importlib.import_module(f"nni_supernet_ext.{folder}")
        for name in module.__all__:
            yield pytest.param(folder, name, getattr(module, name), id=f"{folder}.{name}")


def _methods():
    return [p for p in _public() if p.values[0] in METHOD_FOLDERS and inspect.isclass(p.values[2])]


@pytest.mark.parametrize(("folder", "name", "value"), list(_public()))
def test_public_name_has_a_docstring(folder, name, value):
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return
    text = inspect.getdoc(value)
    assert text, f"{name} has no docstring"
    first = text.split("\n")[0]
    assert first.endswith("."), f"the first line of {name} is no sentence"


def _raises(function) -> bool:
    """Tell whether a function's own source raises, beside what a base leaves to those who derive from it."""
    if not inspect.isfunction(function) or function.__code__.co_filename.startswith("<"):
        return False  # such as the ``__init__`` of a data class
    pending: list[ast.AST] = list(ast.parse(textwrap.dedent(inspect.getsource(function))).body[0].body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Raise) and "NotImplementedError" not in ast.unparse(node):
            return True
        pending.extend(ast.iter_child_nodes(node))
    return False


def _takes_arguments(value) -> bool:
    function = vars(value).get("__init__") if inspect.isclass(value) else value
    if function is None:
        return False
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = [p for p in inspect.signature(function).parameters.values() if p.kind not in variable]
    return len(found) > inspect.isclass(value)


@pytest.mark.parametrize(("folder", "name", "value"), list(_public((*PUBLIC, "recording", "trial", "errors"))))
def test_public_name_has_its_sections(folder, name, value):
    """An example for everything, and arguments and errors where it has them."""
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return
    text = inspect.getdoc(value) or ""
    assert "Example:" in text, f"{name} has no example"
    if _takes_arguments(value):
        attributes = dataclasses.is_dataclass(value) and "Attributes:" in text
        assert "Args:" in text or attributes, f"{name} does not say what its arguments are"
    own = vars(value).get("__init__") if inspect.isclass(value) else value
    assert not _raises(own) or "Raises:" in text, f"{name} does not say what it raises"
    for part, method in vars(value).items() if inspect.isclass(value) else ():
        function = method.fget if isinstance(method, property) else getattr(method, "__func__", method)
        if not part.startswith("_") and _raises(function):
            told = text + (inspect.getdoc(function) or "")
            assert "Raises:" in told, f"{name}.{part} does not say what it raises"


@pytest.mark.parametrize(("folder", "name", "value"), _methods())
def test_method_is_complete(folder, name, value):
    """Docstring with example and source, card, case for the laws, test, changelog line."""
    text = inspect.getdoc(value) or ""
    assert "Example:" in text, f"{name} has no example"
    assert "Reference:" in text or folder == "callbacks", f"{name} has no source"
    card = Path(inspect.getsourcefile(value)).with_suffix(".md")
    assert card.exists(), f"{name} has no card {card.name}"
    assert name in card.read_text(), f"the card {card.name} does not name {name}"
    assert name in {case.name for case in CASES}, f"{name} has no case for the laws"
    assert name in (ROOT / "CHANGELOG.md").read_text(), f"{name} is not in the changelog"
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert name in tests, f"{name} has no test"


def _floor_of(module: str) -> float | None:
    parts = module.split(".")
    return FLOORS.get(parts[1]) if len(parts) > 1 and parts[0] == "nni_supernet_ext" else None


def _imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_floors(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    own = FLOORS.get(parts[0])
    if own is None:
        assert parts == ("__init__",), f"{path} is on no floor"
        return
    for name in _imports(path):
        floor = _floor_of(name)
        if floor is None:
            assert own != 0 or name.split(".")[0] not in ("nni", "pytorch_lightning", "lightning"), name
            continue
        same_folder = name.split(".")[1] == parts[0]
        message = f"{path.relative_to(PACKAGE)} imports {name} of the same or a higher floor"
        assert floor < own or same_folder, message


@pytest.mark.parametrize("card", sorted(PACKAGE.rglob("*.md")), ids=lambda p: p.stem)
def test_code_in_cards_runs(card, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)
    if not blocks:
        pytest.skip("no code in this card")
    namespace: dict[str, object] = {"__name__": "card"}
    for block in blocks:
        exec(compile(block, str(card), "exec"), namespace)


def test_nothing_is_left_to_do():
    """No stub, no open end in the product."""
    words = re.compile(r"\b(TODO|FIXME|XXX|NotImplemented\b(?!Error))")
    for path in PACKAGE.rglob("*.py"):
        assert not words.search(path.read_text()), path
