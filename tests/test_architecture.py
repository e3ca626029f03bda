"""Who may import whom: the table of the design, as a test."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mlcv

ROOT = Path(mlcv.__file__).parent
ENTRY = {"__init__", "__main__"}

MAY_IMPORT = {
    "errors": set(),
    "numerics": set(),
    "cache": {"errors", "files"},
    "distributed": set(),
    "allocator": set(),
    "collector": set(),
    "files": {"errors"},
    "fingerprints": {"errors", "files"},
    "terminal": {"launchers"},
    "launchers": set(),
    "renamings": set(),
    "stopping": {"errors"},
    "trust": {"errors"},
    "command_line": {"errors"},
    "shipped_configs": {"command_line", "errors"},
    "short_help": set(),
    "places": set(),
    "plain_config": {"errors", "renamings", "trust"},
    "labels": {"errors", "files"},
    "audits": {"errors", "labels"},
    "tables": {"collector", "errors", "labels"},
    "ops": {"errors", "numerics"},
    "losses": {"labels", "ops", "numerics", "distributed", "errors"},
    "models": {"ops", "numerics", "errors", "cache", "files", "fingerprints", "plain_config"},
    "data": {"collector", "labels", "errors", "cache", "files", "tables", "fingerprints"},
    "metrics": {"labels", "numerics"},
    "methods": {"models", "losses", "metrics", "ops", "labels", "errors", "distributed", "files", "plain_config",
                "fingerprints", "numerics"},
    "runs": {"data", "methods", "models", "errors", "files", "fingerprints", "places", "plain_config",
             "posthoc"},
    "callbacks": {"metrics", "labels", "losses", "distributed", "errors", "files", "fingerprints", "posthoc", "tables",
                  "terminal", "launchers"},
    "posthoc": {"labels", "metrics", "errors", "tables", "data", "files", "plain_config", "terminal"},
    "sheets": {"data", "errors", "files", "labels", "tables"},
    "studies": {"errors", "files", "plain_config", "shipped_configs", "stopping", "terminal"},
    "trainer_settings": {"callbacks", "errors", "plain_config", "trust"},
    "checkpoint_arguments": {"command_line", "data", "plain_config", "runs", "trainer_settings", "errors", "launchers",
                             "shipped_configs"},
    "commands": {
        "allocator", "audits", "callbacks", "checkpoint_arguments", "command_line",
        "data", "errors", "files", "fingerprints", "labels",
        "launchers", "losses", "methods", "metrics", "models", "places", "plain_config", "posthoc", "renamings", "runs",
        "sheets", "shipped_configs", "short_help", "stopping", "studies", "tables", "terminal", "trust",
    },
    "cli": {"collector", "command_line", "commands", "errors", "launchers", "short_help", "stopping", "trust"},
}  # fmt: skip

THIRD_PARTY = {
    "lightning": (
        "data/base",
        "methods/",
        "callbacks/",
        "commands/config_keeper",
        "commands/parser",
        "commands/training",
        "commands/bench",
        "commands/features",
        "commands/unwritten",
        "trainer_settings",
    ),
    "albumentations": ("data/transforms",),
    "timm": ("models/backbones", "methods/base", "methods/optim", "methods/teacher"),
    "open_clip": ("models/open_clip_tower",),
    "torchmetrics": ("metrics/",),
    "triton": ("ops/",),
    "polars": ("tables/polars_columns",),
    "jsonargparse": ("commands/training", "commands/parser"),
}


def imports():
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                yield path.relative_to(ROOT), node.lineno, name


def room(path):
    return path.parts[0].removesuffix(".py")


def test_rooms_import_only_what_the_table_allows():
    wrong = []
    for path, line, name in imports():
        parts = name.split(".")
        if parts[0] != "mlcv" or len(parts) == 1 or room(path) in ENTRY:
            continue
        if parts[1] != room(path) and parts[1] not in MAY_IMPORT[room(path)]:
            wrong.append(f"mlcv/{path}:{line}: {room(path)} may not import {name}")
    assert not wrong, "\n".join(wrong)


def test_every_room_is_in_the_table():
    rooms = {room(path.relative_to(ROOT)) for path in ROOT.rglob("*.py")} - ENTRY
    assert rooms == set(MAY_IMPORT)


def test_nobody_imports_through_its_own_packages_facade():
    wrong = [
        f"mlcv/{path}:{line}: import from the defining file, not from {name}"
        for path, line, name in imports()
        if path.name != "__init__.py" and name == f"mlcv.{room(path)}" and (ROOT / room(path)).is_dir()
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", sorted(THIRD_PARTY))
def test_libraries_stay_behind_their_gates(library):
    wrong = [
        f"mlcv/{path}:{line}: {name} belongs in {', '.join(THIRD_PARTY[library])}"
        for path, line, name in imports()
        if name.split(".")[0] == library and not path.as_posix().startswith(THIRD_PARTY[library])
    ]
    assert not wrong, "\n".join(wrong)


LIGHT = ("mlcv", "mlcv.ops", "mlcv.labels", "mlcv.losses", "mlcv.errors", "mlcv.tables")
IMPORT_EACH = f"""
import importlib, json, os, sys
import torch  # once for all
for module in {LIGHT}:
    if not os.fork():
        importlib.import_module(module)
        print(json.dumps([module, [*sys.modules]]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def modules():
    """What is imported where one module is asked for, and nothing else of the project is there."""
    result = subprocess.run([sys.executable, "-c", IMPORT_EACH], capture_output=True, text=True, check=True)
    return dict(map(json.loads, result.stdout.splitlines()))


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(modules, module):
    assert module in modules[module]
    assert not {"lightning", "albumentations", "open_clip", "timm", "polars"} & set(modules[module])


def test_public_names_exist():
    for name in mlcv.__all__:
        assert getattr(mlcv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        mlcv.Nothing  # noqa: B018  # the access is the test


def test_no_file_is_too_long_to_be_read():
    long = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in ROOT.rglob("*.py")}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}
