"""Parts of methods from a file of one's own: what they add, and what is refused of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nni_supernet_ext.errors import ConfigurationError

from .test_ranking_command import COMMAND, ground, small


@pytest.fixture(autouse=True)
def parts_as_before(scripts: Any) -> Iterator[None]:
    parts, modules = scripts["parts"].PARTS, set(sys.modules)
    before = dict(parts)
    yield
    parts.clear()
    parts.update(before)
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and "pytest-" in str(sys.modules[name].__file__):
            del sys.modules[name]


def refused(scripts: Any, capsys: pytest.CaptureFixture[str], file: Path, text: str, *more: str) -> str:
    file.write_text(text)
    with pytest.raises(SystemExit):
        scripts["options"].parsed([*COMMAND, "--parts", str(file), *more], None)
    return capsys.readouterr().err


def test_parts_of_ones_own(scripts: Any, tmp_path: Path) -> None:
    file = tmp_path / "my_own_parts.py"
    file.write_text(
        "from nni_supernet_ext.paths import ComplexityPathSampler\nfrom parts import PARTS, Method\n\n"
        "class Mine(ComplexityPathSampler):\n    pass\n\n"
        "PARTS['mine'] = lambda run: Method({'paths': Mine()})\n"
    )
    arguments = ["--protocol", "small", "--out", "none.jsonl", "--parts", str(file), "--methods", "mine,mine+calr"]
    for _ in range(2):  # and once more in the same process
        options = scripts["options"].parsed(arguments, None)
    assert options.methods == ["mine", "mine+calr"]
    method = scripts["methods"].make_method("mine+calr", small(scripts), ground(scripts))
    assert type(method.arguments["paths"]).__name__ == "Mine"
    with pytest.raises(ConfigurationError, match="fairnas"):
        scripts["methods"].make_method("mine+fairnas", small(scripts), ground(scripts))


@pytest.mark.parametrize(("text", "said"), [("1 / 0", "ZeroDivisionError"), ("x = 1", "adds none")])
def test_a_file_without_parts_is_refused(scripts: Any, tmp_path: Path, capsys: Any, text: str, said: str) -> None:
    assert said in refused(scripts, capsys, tmp_path / "nothing.py", text)


@pytest.mark.parametrize("name", ["parts", "methods", "json"])
def test_a_file_does_not_take_the_place_of_a_module(scripts: Any, tmp_path: Path, capsys: Any, name: str) -> None:
    module = sys.modules[name]
    text = "from parts import PARTS, Method\nPARTS['mine'] = lambda run: Method({})\n"
    assert f"`{name}` is a module already" in refused(scripts, capsys, tmp_path / f"{name}.py", text)
    assert sys.modules[name] is module


@pytest.mark.parametrize("name", ["params", "long", "calr", "my+ne", "my,ne", "my/ne"])
def test_names_that_mean_something_else_are_refused(scripts: Any, tmp_path: Path, capsys: Any, name: str) -> None:
    before = dict(scripts["parts"].PARTS)
    text = f"from parts import PARTS, Method\nPARTS['mine'] = PARTS[{name!r}] = lambda run: Method({{}})\n"
    said = refused(scripts, capsys, tmp_path / "named.py", text)
    assert f"but got {name} in" in said and "other names" in said
    assert before == scripts["parts"].PARTS


@pytest.mark.parametrize("value", ["Method({})", "lambda run: {'paths': None}"])
def test_what_is_no_part_is_refused(scripts: Any, tmp_path: Path, capsys: Any, value: str) -> None:
    text = f"from parts import PARTS, Method\nPARTS['mine'] = {value}\n"
    said = refused(scripts, capsys, tmp_path / "no_part.py", text, "--methods", "mine")
    assert "Part `mine` is expected to be a function of the run that returns a Method" in said
