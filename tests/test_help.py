"""What the command line says before it does anything: help, hints, what to do next."""

import os
import re
import sys

import pytest

from mlcv.cli import _MEANT, SUBCOMMANDS, main
from mlcv.commands.mistakes import _USUAL, classes_of_parts, explain, option_names
from mlcv.short_help import SECTIONS, two_columns


@pytest.fixture(scope="module")
def options():
    """Every option that the parser of `fit` knows, and of the classes that may stand in it."""
    from mlcv.commands.training import TrainingCLI

    class Parsed(TrainingCLI):
        def parse_arguments(self, parser, args):
            raise Done(set(option_names(parser)))

    class Done(BaseException):
        pass

    try:
        Parsed.run(["fit"])
    except Done as done:
        return done.args[0]
    raise AssertionError("nothing was parsed")


@pytest.mark.parametrize("subcommand", SECTIONS)
def test_help_names_options_that_exist(subcommand, options):
    named = {name.split()[0].lstrip("-") for section in SECTIONS[subcommand].values() for name in section}
    assert named <= options
    assert len(named) >= 8


@pytest.mark.parametrize("width", ["80", "120"])
@pytest.mark.parametrize("arguments", [[], ["fit", "--help"], ["test", "-h"], ["predict", "--help"]], ids=" ".join)
def test_help_fits_the_terminal(arguments, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", width)
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(width)
    assert 10 < len(lines) < 90


def test_help_of_fit_says_how_to_see_all(capsys):
    assert main(["fit", "--help"]) == 0
    assert "--help_all" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--help_all"])
    assert caught.value.code == 0
    assert "--trainer.overfit_batches" in capsys.readouterr().out


@pytest.mark.parametrize("part", ["model", "data", "model.loss", "model.head"])
def test_help_of_a_part_lists_this_projects_classes_and_no_others(part, capsys):
    assert main(["fit", f"--{part}.help"]) == 0
    said = capsys.readouterr().out
    names = {cls.__name__ for cls in classes_of_parts()[part]}
    assert set(re.findall(r"^  (\w+)  ", said, re.MULTILINE)) == names
    assert len(names) >= 5


def test_help_of_a_class_names_no_class_of_a_third_party_for_its_loss(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model.help", "Classifier"])
    said = capsys.readouterr().out
    assert "AsymmetricLoss" in said
    assert "torch.nn" not in said
    assert len(said.splitlines()) < 150


def test_fit_alone_says_what_to_do_next(capsys):
    assert main(["fit"]) == 2
    said = capsys.readouterr().err
    assert "mlcv init my.csv" in said
    assert "digits/bce" in said


@pytest.mark.parametrize("word", _MEANT)
def test_words_of_other_programs_are_understood(word, capsys):
    assert word not in SUBCOMMANDS
    assert main([word]) == 2
    assert f"did you mean '{_MEANT[word]}'?" in capsys.readouterr().err


@pytest.mark.parametrize(("wrong", "right"), [
    ("trainer.epochs", "trainer.max_epochs"), ("epochs", "trainer.max_epochs"), ("model.lr", "model.optim.lr"),
    ("lr", "model.optim.lr"), ("model.learning_rate", "model.optim.lr"), ("batch_size", "data.batch_size"),
    ("trainer.gpus", "trainer.devices"), ("data.imgsz", "data.image_size"),
    ("optim.weight_decay", "model.optim.weight_decay"), ("model.known_fraction", "data.protocol.known_fraction"),
    ("seed", "seed_everything"), ("trainer.resume", "ckpt_path"),
])  # fmt: skip
def test_options_of_other_programs_are_understood(wrong, right, options):
    said = explain(f"unrecognized arguments: --{wrong}", [f"--{wrong}=1"], sorted(options))
    assert f"did you mean {right!r}?" in said


def test_every_usual_name_leads_to_an_option(options):
    ends = {option.rpartition(".")[2] for option in options}
    assert set(_USUAL.values()) <= ends


def test_a_reader_that_has_seen_enough_makes_no_error():
    import subprocess

    line = f"{sys.executable} -m mlcv configs | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("config")
    assert done.stderr == ""


def test_columns_are_wrapped_beside_each_other(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert two_columns({"a": "one two three four five six seven eight", "bcd": "nine"}).splitlines() == [
        "  a    one two three four five six seven",
        "       eight",
        "  bcd  nine",
    ]


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_help_of_a_command_imports_nothing_heavy_and_fits(command):
    import subprocess

    code = (
        f"import sys; from mlcv.cli import main; assert main([{command!r}, '--help']) == 0; "
        "print(sorted({'torch', 'numpy', 'lightning', 'jsonargparse', 'rich', 'polars'} & set(sys.modules)))"
    )
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]"
    assert max(map(len, lines)) <= 80


def test_what_help_says_by_itself_is_so_elsewhere():
    from mlcv.commands.arguments import FORMATS, PARSERS, parser_of
    from mlcv.commands.export import _MAKERS
    from mlcv.posthoc.calibrated import FILE_NAME

    assert list(_MAKERS) == FORMATS
    assert FILE_NAME in " ".join(parser_of("calibrate").format_help().split())
    assert set(PARSERS) | set(SECTIONS) == set(SUBCOMMANDS)
