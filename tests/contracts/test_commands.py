"""What holds for every command: a typed function for Python, a thin `main` over it, and one kind of error."""

import ast
import importlib
import inspect
import typing
from pathlib import Path

import pytest

import mlcv
from mlcv.cli import SUBCOMMANDS, main
from mlcv.errors import UserError
from tests.tiny_sets import write_rows

MODULES = sorted({module for module, _ in SUBCOMMANDS.values()})
# A function is called as its command, or as its module where that name is a package's, as `mlcv.data` is.
NAMES = {name: name if name in mlcv.__all__ else module for name, (module, _) in SUBCOMMANDS.items()}
FUNCTIONS = sorted(name for name in SUBCOMMANDS if NAMES[name] in mlcv.__all__)


def test_every_command_but_lightnings_has_a_function():
    assert [name for name in SUBCOMMANDS if name not in FUNCTIONS] == ["fit", "validate", "test"]
    assert [name for name in FUNCTIONS if NAMES[name] != name] == ["data"]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_of_a_command_has_a_main(module):
    assert callable(importlib.import_module(f"mlcv.commands.{module}").main)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_function_is_typed_and_says_what_each_argument_is(name):
    function = getattr(mlcv, NAMES[name])
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters
    assert set(hints) == {*parameters, "return"}
    assert "Namespace" not in str(hints)
    section = inspect.getdoc(function).partition("Args:")[2].partition("Raises:")[0]
    assert [p for p in parameters if f"\n    {p}: " not in section] == []
    assert "Raises:" in inspect.getdoc(function)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "training"])
def test_main_reads_options_calls_the_function_and_prints(module):
    """No line of work is in a place that Python users cannot call."""
    tree = ast.parse(Path(importlib.import_module(f"mlcv.commands.{module}").__file__).read_text())
    (body,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    called = {node.func.id for node in ast.walk(body) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert module in called or module == "calibrate"  # whose table shows what it was fitted to
    assert len(body.body) < 12


WRONG = {
    "bench": lambda path: [["--config", str(path)]],
    "data": lambda path: [["--config", str(path)]],
    "configs": lambda path: [path, path.with_suffix(".yaml")],
    "ensemble": lambda path: [[path]],
    "evaluate": lambda path: [[path]],
    "features": lambda path: [["--config", str(path)]],
    "prepare": lambda path: [["--config", str(path)]],
    "preview": lambda path: [["--config", str(path)]],
    "report": lambda path: [[path]],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_wrong_path_is_a_users_error_that_names_it(name, tmp_path, capsys):
    absent = tmp_path / "absent.file"
    with pytest.raises(UserError, match=r"absent\.file"):
        getattr(mlcv, NAMES[name])(*WRONG.get(name, lambda path: [path])(absent))
    option = {
        "bench": ["--config"], "export": ["--ckpt_path"], "predict": ["--ckpt_path"], "preview": ["--config"],
        "prepare": ["--config"], "data": ["--config"], "features": ["--config"],
        "self_train": ["--config"], "configs": ["copy"],
    }.get(name, [])  # fmt: skip
    assert main([name, *option, str(absent)]) == 2
    assert "absent.file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("calibrate", {"goal": "rcall"}),
        ("calibrate", {"method": "plat"}),
        ("evaluate", {"combined": "meann"}),
        ("ensemble", {"how": "max"}),
        ("bench", {"modes": ["egar"]}),
        ("export", {"formats": "onx"}),
        ("audit", {"order": "eror"}),
        ("data", {"fail_on": ["leakige"]}),
    ],
)
def test_a_wrong_word_is_refused_as_the_command_line_does(name, given, tmp_path):
    path = write_rows(tmp_path / "p.csv", ["image", "a"], [[f"{n}.jpg", n / 9] for n in range(8)])
    if name == "calibrate":
        truth = write_rows(tmp_path / "t.csv", ["image", "a"], [[f"{n}.jpg", n % 2] for n in range(8)])
        given = {**given, "truth": truth}
    absent = ["--config=absent.yaml"]
    argument = {"ensemble": [path], "bench": absent, "data": absent}.get(name, path)
    with pytest.raises(UserError, match=f"{next(iter(given))} is one of "):
        getattr(mlcv, NAMES[name])(argument, **given)
