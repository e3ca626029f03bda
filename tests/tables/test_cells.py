"""What cells of label columns mean, by themselves and as the command line is told."""

import json
import re
import subprocess

import pytest
import yaml

from mlcv.cli import main
from mlcv.errors import ConfigError, DataError
from mlcv.tables import Codes, Table, column_states
from tests.tiny_sets import write_image

WORDS = {
    1: ["1", "1.0", "1.", "+1", "01", "1e0", "true", "yes", "y", "t", "present", "positive", "pos"],
    0: ["0", "0.0", ".0", "-0", "-0.0", "0e5", "false", "no", "n", "f", "absent", "negative", "neg"],
    -1: ["", "nan", "na", "n/a", "<na>", "null", "none", "unknown", "?"],
}
STRANGE = [
    "-1", "2", "0.5", "0.9999999", "1.0000001", "1_", "0_0", "1_0", "0x1", "\u0661", "inf", "-", "maybe", "a|b", "10",
    "00.1", "1 0", "tr\u00fce",
]  # fmt: skip


def table_of(tmp_path, cells):
    path = tmp_path / "cells.csv"
    path.write_text("image,cat\n" + "".join(f'{n}.jpg,"{cell}"\n' for n, cell in enumerate(cells)))
    return Table(path)


def states(tmp_path, cells, codes=None):
    return column_states(table_of(tmp_path, cells), ["cat"], codes or Codes())[:, 0].tolist()


@pytest.mark.parametrize("state", sorted(WORDS))
def test_the_natural_spellings_are_understood_in_any_case(tmp_path, state):
    cells = [form for word in WORDS[state] for form in (word, word.upper(), word.capitalize(), f" {word} ")]
    assert set(states(tmp_path, cells)) == {state}


@pytest.mark.parametrize("cell", STRANGE)
def test_nothing_else_is_understood_unless_it_is_said(tmp_path, cell):
    with pytest.raises(
        DataError, match=rf"cells.csv:3: column 'cat' holds {re.escape(repr(cell))}, no word for positive"
    ):
        states(tmp_path, ["1", cell])
    for name, state in (("positive", 1), ("negative", 0), ("uncertain", -2), ("unknown", -1)):
        assert states(tmp_path, [cell], Codes(**{name: (cell,)})) == [state]


def test_numbers_that_are_nearly_a_code_are_not_that_code(tmp_path, numpy_rng):
    for value in numpy_rng.uniform(-3, 3, 200):
        with pytest.raises(DataError, match="no word for"):
            states(tmp_path, [repr(float(value))])


def test_a_given_list_replaces_its_own_defaults_and_goes_before_those_of_others(tmp_path):
    codes = Codes(positive=("2",), unknown=("no",))
    assert states(tmp_path, ["2", "0", "no", "n", ""], codes) == [1, 0, -1, 0, -1]
    for gone in ("1", "yes"):
        with pytest.raises(DataError, match=r"no word for positive \('2'\)"):
            states(tmp_path, [gone], codes)
    with pytest.raises(ConfigError, match="data.codes give '1' two meanings"):
        Codes(positive=("1.0",), uncertain=("1",)).table()


def test_an_empty_cell_and_the_words_programs_write_for_it_mean_the_same(tmp_path):
    cells = ["", "nan", "NaN", "NA", "None", "null", "?"]
    assert states(tmp_path, cells, Codes(blank="negative")) == [0, 0, 0, 0, 0, 0, -1]
    assert states(tmp_path, cells[:-1], Codes(blank="negative", unknown=("nan",))) == [0, -1, -1, 0, 0, 0]


@pytest.mark.parametrize(
    ("given", "cells"),
    [
        ((True,), ["true", "yes", "on", "TRUE"]),
        ([True, "x"], ["yes", "x"]),
        ((1,), ["1", "1.0"]),
        ((1.0,), ["1", "1.0"]),
        ((-1,), ["-1", "-1.0"]),
        (("-1",), ["-1", "-1.0"]),
        ((None,), ["null"]),
        (("[?]",), ["?"]),
        ("yes", ["yes"]),
        ("yes, y", ["yes", "y"]),
        (1, ["1"]),
        (True, ["yes"]),
    ],
)
def test_what_yaml_makes_of_a_list_means_what_was_written(tmp_path, given, cells):
    codes = Codes(uncertain=given)
    assert states(tmp_path, cells, codes) == [-2] * len(cells)
    assert all(type(word) is str for word in codes.uncertain)
    again = Codes(**yaml.safe_load(yaml.safe_dump({"uncertain": list(codes.uncertain)})))
    assert again == codes
    assert hash(again) == hash(codes)


@pytest.fixture
def marked(tmp_path):
    """Trains two steps on a table with these cells in its one label column; returns the exit code and the counts."""

    def train(cells, *options):
        for n in range(len(cells)):
            write_image(tmp_path / f"{n}.jpg", seed=n)
        path = tmp_path / "marked.csv"
        path.write_text(
            "image,split,cat\n"
            + "".join(f"{n}.jpg,{'val' if n < 2 else 'train'},{cell}\n" for n, cell in enumerate(cells))
        )
        arguments = [
            "--data=CSVDataModule", f"--data.path={path}", "--data.split_column=split", "--data.batch_size=2",
            "--data.image_size=32", "--data.num_workers=0", "--model=Classifier", "--model.backbone=test_resnet",
            "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
            "--trainer.enable_checkpointing=false", "--trainer.accelerator=cpu", "--run_dir", str(tmp_path / "run"),
        ]  # fmt: skip
        code = main(["fit", *arguments, *options])
        written = tmp_path / "run" / "val.json"
        return code, json.loads(written.read_text())["labels"]["train"] if written.exists() else None

    return train


@pytest.mark.parametrize("value", ["[yes]", '["yes"]', "[true]", "yes", "[yes, 1]"])
def test_yes_on_the_command_line_is_yes(marked, value):
    code, counts = marked(["yes", "0", "yes", "0", "yes", "0"], f"--data.codes.positive={value}")
    assert code == 0
    assert (counts["positive"], counts["negative"], counts["unknown"]) == (2, 2, 0)


@pytest.mark.parametrize(
    "codes",
    [
        "{negative: [-1]}",
        "{negative: ['-1']}",
        "{negative: -1}",
        "{positive: [1.0], negative: [-1.0]}",
        "{positive: [yes, 1], negative: ['-1']}",
    ],
)
def test_numbers_and_words_in_a_file_are_what_they_look_like(marked, tmp_path, codes):
    path = tmp_path / "codes.yaml"
    path.write_text(f"data: {{class_path: CSVDataModule, init_args: {{codes: {codes}}}}}\n")
    code, counts = marked(["1", "-1", "1", "-1", "1.0", "-1"], "--config", str(path))
    assert code == 0
    assert (counts["positive"], counts["negative"]) == (2, 2)
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"]["init_args"]["codes"]
    assert Codes(**kept).table()["-1"] == 0


@pytest.mark.parametrize(("others", "state"), [(["1", "-1", "0", "-1"], "uncertain")])
def test_the_fix_that_an_error_shows_works_when_it_is_pasted(marked, capsys, others, state):
    cells = ["1", "-1", *others]
    assert marked(cells)[0] == 2
    said = capsys.readouterr().err
    fix = re.search(r"give (--data\.codes\.\w+ '[^']*')", said)[1]
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {fix}"], capture_output=True, text=True, check=True).stdout
    code, counts = marked(cells, *words.splitlines())
    assert code == 0
    assert counts[state] == 2


def test_a_word_that_a_given_list_replaced_is_put_back_by_the_fix(marked, capsys):
    cells = ["1", "0", "yes", "0", "1", "0"]
    assert marked(cells, "--data.codes.positive=[yes]")[0] == 2
    fix = re.search(r"code for positive, give (--data\.codes\.positive) '([^']*)'", capsys.readouterr().err)
    code, counts = marked(cells, fix[1], fix[2])
    assert code == 0
    assert (counts["positive"], counts["negative"]) == (2, 2)


@pytest.mark.parametrize("cell", ["34", "1.3", "p17"])
def test_a_column_of_other_things_is_named_with_the_option_that_leaves_it_out(marked, capsys, cell):
    assert marked(["1", "0", cell, "1", "0", "1"])[0] == 2
    said = capsys.readouterr().err
    assert re.search(rf"marked.csv:4: column 'cat' holds '{re.escape(cell)}'.*data.codes.*data.label_columns", said)
