"""`mlcv evaluate`: files that fit together, studies, readers, subgroups, and sentences for those that do not."""

import csv
import json
import math

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from mlcv.cli import main
from mlcv.errors import ConfigError, DataError
from mlcv.posthoc import aggregate, combine, read_predictions, read_truth, study_of
from mlcv.posthoc.judge import judge, match, operating_points, subgroups
from tests.tiny_sets import write_rows as write

NAMES = ("Edema", "Fracture")


@pytest.fixture
def files(tmp_path, numpy_rng):
    """Two views of each of 40 studies of 20 patients: scores, another model's scores, and truth."""
    truth, scores, others = [], [], []
    for n in range(40):
        study = f"patient{n // 2:05d}/study{n % 2 + 1}"
        labels = numpy_rng.integers(0, 2, 2)
        labels[0], labels[1] = (n % 3 == 0), (n % 2)  # both classes have both
        for view in ("view1_frontal", "view2_lateral"):
            cells = [int(label) for label in labels]
            truth.append([f"CheXpert-v1.0/valid/{study}/{view}.jpg", "Male" if n % 2 else "Female", 20 + n, *cells])
            scores.append([f"/data/{study}/{view}.jpg", *(labels + numpy_rng.normal(size=2))])
            others.append([f"/data/{study}/{view}.jpg", *(labels + numpy_rng.normal(size=2))[::-1]])
    order = numpy_rng.permutation(80)
    return (
        write(tmp_path / "a.csv", ["image", *NAMES], [scores[n] for n in order]),
        write(tmp_path / "b.csv", ["image", *NAMES[::-1]], others),
        write(tmp_path / "truth.csv", ["Path", "Sex", "Age", *NAMES], truth),
    )


def test_a_study_has_the_largest_or_mean_score_of_its_views(files, tmp_path):
    model, truth = read_predictions(files[0], NAMES), read_truth(files[2], NAMES)
    rows = {}
    for name, values in zip(model.ids, model.scores.tolist(), strict=True):
        rows.setdefault(study_of(name), []).append(values)
    for how, reduce in (("max", max), ("mean", lambda v: sum(v) / len(v))):
        scores, studies = match(model, truth, how)
        assert len(studies.ids) == 40
        for name, found in zip(studies.ids, scores.tolist(), strict=True):
            assert found == pytest.approx([reduce(column) for column in zip(*rows[name], strict=True)])


def test_images_match_from_their_patient_on_wherever_the_archive_lies(files):
    model, truth = read_predictions(files[0], NAMES), read_truth(files[2], NAMES)
    scores, same = match(model, truth)
    assert same is truth
    place = {name.removeprefix("/data/"): row for row, name in enumerate(model.ids)}
    rows = [place[name.removeprefix("CheXpert-v1.0/valid/")] for name in truth.ids]
    assert torch.equal(scores, model.scores[rows])


def test_a_study_with_one_view_keeps_its_score():
    keys, scores = aggregate(torch.tensor([[0.3], [-2.0], [0.1]]), ["b", "a", "b"])
    assert keys == ("b", "a")
    assert scores.tolist() == [[pytest.approx(0.3)], [-2.0]]


def test_areas_are_scikit_learns_over_studies(files):
    model, truth = read_predictions(files[0], NAMES), read_truth(files[2], NAMES)
    judged = judge(model, truth, "max", resamples=20)
    for c in range(2):
        arguments = judged.truth.targets[:, c].numpy(), judged.scores[:, c].numpy()
        assert judged.areas.value[0, c].item() == pytest.approx(roc_auc_score(*arguments))
        assert judged.areas.value[1, c].item() == pytest.approx(average_precision_score(*arguments))


def test_the_command_writes_tables_and_pictures_of_models_groups_and_readers(files, tmp_path, capsys):
    reader = write(
        tmp_path / "doctor.csv", ["Study", *NAMES],
        [[f"x/patient{n // 2:05d}/study{n % 2 + 1}", int(n % 3 == 0), 1] for n in range(40)],
    )  # fmt: skip
    out = tmp_path / "out"
    command = ["evaluate", *map(str, files[:2]), "--truth", str(files[2]), "--study", "max", "--combine", "mean"]
    options = ["--by", "Sex", "Age", "--readers", str(reader), "--thresholds", "0.5", "--resamples", "50"]
    assert main([*command, *options, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "mean of 2" in printed
    assert "1.00 / 1.00" in printed  # the doctor on the first class
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert {(row["by"], row["group"]) for row in rows} == {
        ("", ""), ("Sex", "Female"), ("Sex", "Male"), ("Age", "0-39"), ("Age", "40-59"),
    }  # fmt: skip
    whole = [row for row in rows if row["model"] == "a" and not row["by"]]
    assert [row["class"] for row in whole] == [*NAMES, "mean of 2"]
    for row in whole:
        assert float(row["AUROC_low"]) <= float(row["AUROC"]) <= float(row["AUROC_high"])
    mean = sum(float(row["AUROC"]) for row in whole[:2]) / 2
    assert float(whole[2]["AUROC"]) == pytest.approx(mean)
    facts = json.loads((out / "results.json").read_text())
    assert facts["operating_points"]["doctor"]["sensitivity"] == {"Edema": 1.0, "Fracture": 1.0}
    assert facts["operating_points"]["doctor"]["specificity"] == {"Edema": 1.0, "Fracture": 0.0}
    gain = facts["gains"]["mean of 2 - a"]
    both = {row["model"]: row["AUROC"] for row in facts["results"] if row["class"] == "mean of 2" and not row["by"]}
    assert gain["value"] == pytest.approx(both["mean of 2"] - both["a"])
    assert gain["low"] <= gain["value"] <= gain["high"]
    # A Fracture score does not tell the sexes apart where every man and no woman has one: no area there.
    women = [row for row in facts["results"] if row["group"] == "Female" and row["class"] == "Fracture"]
    assert women[0]["AUROC"] is None
    assert all((out / name).stat().st_size > 5000 for name in ("roc.png", "pr.png"))


def test_one_group_gives_points_without_intervals_and_says_why(files, tmp_path, capsys):
    with files[2].open() as file:
        header, *rows = csv.reader(file)
    write(files[2], [*header, "clinic"], [[*row, "one"] for row in rows])
    out = tmp_path / "out"
    command = ["evaluate", str(files[0]), "--truth", str(files[2]), "--group", "clinic", "--by", "Sex"]
    assert main([*command, "--no_pictures", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "nan" not in printed
    assert "no intervals: all rows with labels are one of groups by 'clinic'" in " ".join(printed.split())
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert all(row["AUROC_low"] == row["AUPRC_high"] == "" for row in rows)
    assert all(0 <= float(row["AUROC"]) <= 1 for row in rows if not row["by"])
    women = next(row for row in rows if row["group"] == "Female" and row["class"] == "Fracture")
    assert women["AUROC"] == ""


def test_many_models_and_classes_are_tables_of_80_columns(tmp_path, numpy_rng, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"photograph of a large brown dog on the lawn of house {c}" for c in range(80)]
    targets = (numpy_rng.random((60, 80)) < 0.2).astype(int)
    targets[0], targets[1] = 1, 0
    header = ["image", *names, *(f"truth:{name}" for name in names)]
    paths = [
        write(tmp_path / f"{n}.csv", header, [[f"{m}", *numpy_rng.random(80), *targets[m]] for m in range(60)])
        for n in range(4)
    ]
    command = ["evaluate", *map(str, paths), "--resamples", "20", "--no_pictures", "--out", "out"]
    monkeypatch.chdir(tmp_path)
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("60 rows, 80 classes"))
    assert max(map(len, lines[begin:])) <= 80
    assert sum("all rows: out/results.csv" in line for line in lines) == 2
    lowest = [line.split() for line in lines[lines.index("AUPRC of each model, lowest AUPRC of 3 first") :]][3]
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    found = {row["model"]: row["AUPRC"] for row in rows if row["class"].endswith(f" {lowest[-5]}")}
    assert [f"{float(found[str(n)]):.3f}" for n in range(4)] == lowest[-4:]
    assert float(found["3"]) == min(float(row["AUPRC"]) for row in rows if row["model"] == "3")


def test_a_file_of_mlcv_test_holds_its_own_truth(tmp_path, capsys):
    options = [
        "--data=DigitScenesDataModule", "--data.num_train=32", "--data.num_val=40", "--data.num_test=60",
        "--data.image_size=32", "--data.batch_size=8", "--model=Classifier", "--model.backbone=test_resnet",
        "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--test_after_fit=true",
    ]  # fmt: skip
    run = tmp_path / "run"
    assert main(["fit", *options, "--run_dir", str(run)]) == 0
    path = run / "test_predictions.csv"
    assert main(["evaluate", str(path), "--resamples", "20", "--no_pictures", "--out", str(tmp_path / "out")]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    found = {row["class"]: row for row in rows}
    table = {row["class"]: row for row in csv.DictReader((run / "test_per_class.csv").open())}
    for digit in map(str, range(10)):
        assert float(found[digit]["AUROC"]) == pytest.approx(float(table[digit]["AUROC"]), abs=1e-4)
        assert float(found[digit]["AUPRC"]) == pytest.approx(float(table[digit]["AP"]), abs=1e-4)


def test_means_and_ranks_combine_models_row_by_row(files):
    a, b = (read_predictions(path, NAMES) for path in files[:2])
    both = combine([a, b])
    other = dict(zip(b.ids, b.scores.tolist(), strict=True))
    expected = [
        [(x + y) / 2 for x, y in zip(s, other[n], strict=True)] for n, s in zip(a.ids, a.scores.tolist(), strict=True)
    ]
    torch.testing.assert_close(both.scores, torch.tensor(expected, dtype=torch.float64))
    alone = combine([a], "rank").scores
    assert torch.equal(alone.argsort(dim=0), a.scores.argsort(dim=0))
    assert alone.max() == 1
    assert alone.min() == pytest.approx(1 / 80)
    cut = type(b)(b.name, b.ids[1:], b.scores[1:], b.class_names)
    with pytest.raises(ConfigError, match=r"a and b cannot be combined: row /data/patient00000/study1/view1"):
        combine([a, cut])


def test_ranks_of_equal_scores_are_equal(tmp_path):
    path = write(tmp_path / "a.csv", ["image", "Edema"], [["x", 2], ["y", 1], ["z", 2]])
    ranks = combine([read_predictions(path, ["Edema"])], "rank").scores.flatten().tolist()
    assert ranks == pytest.approx([2.5 / 3, 1 / 3, 2.5 / 3])


def test_sensitivity_and_specificity_are_counted_over_what_is_known():
    decisions = torch.tensor([[1, 0], [1, 0], [0, 0], [0, 0]]).bool()
    targets = torch.tensor([[1, 0], [0, 0], [1, 0], [-1, 0]])
    points = operating_points(decisions, targets)
    assert points["sensitivity"][0] == 0.5
    assert points["specificity"].tolist() == [0.0, 1.0]
    assert points["precision"][0] == 0.5
    assert math.isnan(points["sensitivity"][1])


def test_files_that_do_not_fit_are_named_with_what_to_do(files, tmp_path):
    truth = read_truth(files[2], NAMES)
    model = read_predictions(files[0], NAMES)
    part = type(model)("m", tuple(name[:-4] for name in model.ids), model.scores, NAMES)
    with pytest.raises(DataError, match=r"80 of the 80 rows of the truth have no prediction.*--study"):
        match(part, truth)
    with pytest.raises(DataError, match="names no study"):
        match(type(model)("m", ("x.jpg",), model.scores[:1], NAMES), truth, "max")
    with pytest.raises(ConfigError, match="--by Hospital: the truth has the columns Sex, Age"):
        subgroups(truth, "Hospital")
    path = write(tmp_path / "c.csv", ["image", "Edema"], [["x", "0.5"], ["y", "high"]])
    with pytest.raises(DataError, match=r"c.csv:3: column 'Edema' holds 'high'; a finite score"):
        read_predictions(path, ["Edema"])
    path = write(tmp_path / "c.csv", ["image", "Edema"], [["x", "0.5"], ["x", "0.6"]])
    with pytest.raises(DataError, match=r"c.csv:3: x is in .*c.csv:2 already"):
        read_predictions(path, ["Edema"])
    path = write(tmp_path / "c.csv", ["image", "Edema"], [])
    with pytest.raises(DataError, match="no row below the header"):
        read_predictions(path, ["Edema"])
    assert main(["evaluate", str(files[0]), "--truth", str(tmp_path / "none.csv")]) == 2
    path = write(tmp_path / "c.csv", ["image", "Cold"], [["x", "0.5"]])
    assert main(["evaluate", str(path), "--truth", str(files[2])]) == 2


def test_a_study_whose_rows_disagree_is_refused(files, tmp_path):
    with files[2].open() as file:
        rows = list(csv.reader(file))
    rows[2][3] = "1" if rows[1][3] == "0" else "0"
    write(files[2], rows[0], rows[1:])
    with pytest.raises(DataError, match=r"study1/view2_lateral.jpg is not that of .*view1_frontal.jpg, the same study"):
        match(read_predictions(files[0], NAMES), read_truth(files[2], NAMES), "max")


def test_leaderboard_models_of_the_official_test_set_are_judged(shared_data, tmp_path):
    folder = shared_data / "chest_xray" / "chexpert_test"
    models = sorted((folder / "example_models" / "predictions" / "standard").glob("*.csv"))
    command = ["evaluate", *map(str, models), "--truth", str(folder / "groundtruth.csv"), "--classes", "tasks"]
    out = tmp_path / "out"
    assert main([*command, "--combine", "rank", "--resamples", "20", "--no_pictures", "--out", str(out)]) == 0
    means = {
        row["model"]: float(row["AUROC"])
        for row in csv.DictReader((out / "results.csv").open())
        if "mean of 5" in row["class"]
    }
    assert len(means) == 11
    assert all(0.9 < value < 0.95 for value in means.values())
    assert max(means, key=means.get) == "rank of 10"
