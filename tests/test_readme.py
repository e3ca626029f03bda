"""The README's first command does what it says; the others parse."""

import json
import re
import shlex
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mlcv.cli import main
from mlcv.shipped_configs import text_alone
from tests.test_configs import parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("quickstart", "my-table", "my-labels"))]
TEXT = "".join(page.read_text() for page in PAGES)
COMMANDS = sorted(
    {
        found.strip()
        for found in re.findall(r"(?:^|`)(mlcv fit --config [^`#\n]*)", TEXT.replace("\\\n", " "), re.MULTILINE)
    }
)


def test_setuptools_can_read_what_the_package_requires():
    """It takes the marker of a requirement on its key's own line for a second requirement, and installs nothing."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    values = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    assert len(values) > 5
    for value in values:
        assert value.startswith("\n") or ";" not in value
        for line in filter(None, value.splitlines()):
            Requirement(line)


@pytest.mark.first
def test_the_quick_start_reaches_what_the_readme_promises(monkeypatch, tmp_path, capsys):
    command = re.search(r"\.venv/bin/mlcv (fit .*)", TEXT)[1]
    arguments = shlex.split(command)
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--trainer.enable_progress_bar=false"]) == 0
    facts = json.loads((tmp_path / "runs" / "digits-bce" / "0" / "test.json").read_text())
    assert facts["metrics"]["mAP"] >= 0.98
    assert "mAP" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_pages_parses(command, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command)[1:]
    table = tmp_path / "my.csv"
    table.write_text("image,patient,split,cat\na.jpg,p1,train,1\n")
    for place, argument in enumerate(arguments):
        if argument == "my.csv":
            arguments[place] = str(table)
        elif argument in ("my.yaml", "new.yaml"):
            arguments[place] = str(tmp_path / argument)
            text = text_alone("csv/bce", "my.yaml").replace("data/table.csv", str(table))
            Path(arguments[place]).write_text(text)
    parse(monkeypatch, *arguments)


def test_the_pages_have_commands():
    assert len(COMMANDS) >= 5
