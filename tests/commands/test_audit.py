"""`mlcv audit` from files of predictions and from a config, with decisions, and what corrections were worth."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from mlcv.cli import main
from mlcv.commands import audit_effect, audit_folds, stages
from mlcv.commands.audit import _percent, audit
from mlcv.commands.audit_effect import CORRECTED, GIVEN, effect
from mlcv.commands.audit_files import CLASS_COLUMNS
from mlcv.errors import ConfigError, DataError, Stopped
from tests.tiny_sets import write_image, write_rows

NAMES = ("a,b", "cat", "=dog")


def made(seed, images=400):
    """Logits, true labels, given ones with a tenth of the positives missing and 1 % of the negatives turned."""
    rng = np.random.default_rng(seed)
    true = rng.random((images, len(NAMES))) < 0.3
    logits = 4.0 * true - 2 + rng.normal(0, 1, true.shape)
    given = np.where(true, rng.random(true.shape) >= 0.1, rng.random(true.shape) < 0.01)
    return logits, true, given.astype(int)


def write_predictions(path, logits, given, images=None):
    probs = 1 / (1 + np.exp(-logits))
    header = ["index", "image", *NAMES, *(f"truth:{name}" for name in NAMES), "model", "rows"]
    names = images or [f"{row}.jpg" for row in range(len(probs))]
    rows = [
        [row, names[row], *probs[row], *("" if cell < 0 else cell for cell in given[row]), "m", len(probs)]
        for row in range(len(probs))
    ]
    return write_rows(path, header, rows)


def read(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_wrong_labels_come_first_and_are_counted(tmp_path, seed, capsys):
    logits, true, given = made(seed)
    given[:3, 1] = -1
    path = write_predictions(tmp_path / "p.csv", logits, given)
    assert main(["audit", str(path), "--show", "0"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    rows = read(tmp_path / "entries.csv")
    assert len(rows) == given.size - 3
    place = {name: column for column, name in enumerate(["a,b", "cat", "'=dog"])}
    wrong = [
        bool(true[int(row["image"].removesuffix(".jpg")), place[row["class"]]]) != (row["given"] == "1") for row in rows
    ]
    probabilities = [float(row["probability"]) for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    assert np.mean(wrong[:20]) > 0.7
    assert sum(probabilities) == pytest.approx(sum(wrong), rel=0.5)
    assert all(row["reason"].startswith("called ") for row in rows[:50])
    summary = json.loads((tmp_path / "audit.json").read_text())
    assert summary["known"] == len(rows)
    assert summary["expected_wrong"] == pytest.approx(sum(probabilities), rel=1e-3)
    assert f"{len(rows)} known labels, {summary['expected_wrong']:.0f} expected to be wrong" in said
    classes = read(tmp_path / "classes.csv")
    assert tuple(classes[0]) == CLASS_COLUMNS
    assert len(classes) == 2 * len(NAMES)
    for row in classes:
        assert float(row["low"]) <= float(row["rate"]) <= float(row["high"])


def test_a_class_of_which_the_models_know_nothing_is_told(tmp_path, seed, capsys):
    logits, _, given = made(seed)
    logits[:, 1] = -1.0  # a constant, as often as the class is there
    given[:, 1] = np.arange(len(given)) % 4 == 0
    assert main(["audit", str(write_predictions(tmp_path / "p.csv", logits, given)), "--show", "0"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "nothing shows that the models know anything of cat: they order its labels no better than chance" in said
    informed = {row["class"]: row["is_informed"] for row in read(tmp_path / "classes.csv")}
    assert informed == {"a,b": "yes", "cat": "no", "'=dog": "yes"}
    (split,) = json.loads((tmp_path / "audit.json").read_text())["splits"].values()
    assert split["not_informed"] == ["cat"]


def test_suggestions_are_of_unknown_entries_and_what_is_next_keeps_the_budget(tmp_path, seed):
    logits, true, given = made(seed)
    rng = np.random.default_rng(seed + 1)
    unknown = rng.random(given.shape) < 0.3
    given[unknown] = -1
    path = write_predictions(tmp_path / "p.csv", logits, given)
    found = audit([path], show=0, budget=7, sure=0.8)
    rows = read(tmp_path / "suggestions.csv")
    assert len(rows) == found.summary["suggestions"] > 10
    names = ["a,b", "cat", "'=dog"]
    right = []
    for row in rows:
        place = int(row["image"].removesuffix(".jpg")), names.index(row["class"])
        assert unknown[place]
        assert float(row["probability"]) >= 0.8
        right.append(true[place] == (row["suggested"] == "1"))
    assert np.mean(right) > 0.9
    asked = read(tmp_path / "next.csv")
    assert len({row["image"] for row in asked}) == 7


def test_logits_of_several_models_are_averaged(tmp_path, seed):
    logits, _, given = made(seed)
    noise = np.random.default_rng(seed + 1).normal(0, 2, logits.shape)
    one = write_predictions(tmp_path / "one.csv", logits + noise, given)
    other = write_predictions(tmp_path / "other.csv", logits - noise, given)
    both = write_predictions(tmp_path / "both.csv", logits, given)
    found = [audit(paths, out=tmp_path / str(len(paths)), show=0) for paths in ([one, other], [both])]
    assert found[0].parts[0].logits == pytest.approx(found[1].parts[0].logits, abs=1e-6)
    assert found[0].summary["expected_wrong"] == pytest.approx(found[1].summary["expected_wrong"], rel=1e-3)


def test_decisions_mend_what_is_thought_of_the_rest_and_are_not_shown_again(tmp_path, seed):
    logits, true, given = made(seed)
    given = np.where(true & (np.random.default_rng(seed + 1).random(true.shape) < 0.3), 0, given)
    path = write_predictions(tmp_path / "p.csv", logits, given)
    before = audit([path], show=0)
    rows = read(tmp_path / "entries.csv")[:60]
    shown = [(row["image"], row["class"].lstrip("'"), row["given"]) for row in rows]
    decided = [[image, name, was, was, "right", "me", ""] for image, name, was in shown]
    file = write_rows(tmp_path / "c.csv", ["image", "class", "given", "label", "decision", "who", "when"], decided)
    after = audit([path], show=0, decisions=file, out=tmp_path / "again")
    assert after.summary["expected_wrong"] < before.summary["expected_wrong"] - 30
    entries = read(tmp_path / "again" / "entries.csv")
    assert {row["decided"] for row in entries[-60:]} == {"yes"}
    assert {row["decided"] for row in entries[:-60]} == {""}


def decided_of(tmp_path, entries, splits=None):
    """A file of corrections that calls every other of some rows of `entries.csv` wrong."""
    rows = []
    for number, row in enumerate(entries):
        label = 1 - int(row["given"]) if number % 2 else int(row["given"])
        split = splits[number % len(splits)] if splits else row["split"]
        word = "wrong" if number % 2 else "right"
        rows.append([row["image"], row["class"].lstrip("'"), row["given"], label, word, "me", "", split])
    return write_rows(
        tmp_path / "c.csv", ["image", "class", "given", "label", "decision", "who", "when", "split"], rows
    )


def test_decisions_of_labels_that_are_corrected_now_do_not_call_them_wrong(tmp_path, seed, caplog):
    logits, _, given = made(seed)
    path = write_predictions(tmp_path / "p.csv", logits, given)
    audit([path], show=0)
    file = decided_of(tmp_path, read(tmp_path / "entries.csv")[:40])
    places = {name: column for column, name in enumerate(NAMES)}
    for number, row in enumerate(read(file)):
        place = int(row["image"].removesuffix(".jpg")), places[row["class"]]
        given[place] = int(row["label"]) if number != 0 else 1 - int(row["label"])  # somebody has changed the first
    fixed = write_predictions(tmp_path / "fixed.csv", logits, given)
    found = audit([fixed], show=0, decisions=file, out=tmp_path / "again")
    part = found.parts[0]
    assert len(part.decided) == 39
    assert all(part.judgement.wrong[place] == 0 for place in part.decided)
    assert "1 decisions are passed over" in caplog.text


def test_decisions_of_a_split_are_of_its_predictions_too_and_what_fits_nothing_is_told(tmp_path, seed, caplog):
    logits, _, given = made(seed)
    path = write_predictions(tmp_path / "p.csv", logits, given)
    audit([path], show=0)
    entries = read(tmp_path / "entries.csv")[:20]
    found = audit([path], show=0, decisions=decided_of(tmp_path, entries, ["train"]), out=tmp_path / "again")
    assert len(found.parts[0].decided) == 20
    assert "passed over" not in caplog.text
    elsewhere = decided_of(tmp_path, [*entries, {**entries[0], "image": "other.jpg"}], ["train"])
    audit([path], show=0, decisions=elsewhere, out=tmp_path / "again")
    assert "1 decisions are passed over" in caplog.text
    with pytest.raises(DataError, match="is of several splits"):
        audit([path], show=0, decisions=decided_of(tmp_path, [entries[0], entries[0]], ["train", "test"]))


def page_of(folder):
    page = (folder / "audit.html").read_text()
    return json.loads(page.split('id="data"')[1].split(">", 1)[1].split("</script>")[0])


def test_the_page_of_a_second_round_carries_what_was_decided_in_the_first(config, tmp_path, calls):
    rows = read(tmp_path / "t.csv")
    first = [[rows[0]["image"], "bright", rows[0]["bright"], 1 - int(rows[0]["bright"]), "wrong", "=me", "then"]]
    header = ["image", "class", "given", "label", "decision", "who", "when"]
    corrections = write_rows(tmp_path / "c.csv", header, first)
    given = ["--config", str(config), f"--data.corrections={corrections}"]
    audit(options=given, out=tmp_path / "out", folds=2, full=True, show=3)
    (row,) = page_of(tmp_path / "out")["earlier"]
    named = {"image": str(tmp_path / rows[0]["image"]), "split": "train"}  # as the page has its entries
    assert row == {**dict(zip(header, map(str, first[0]), strict=True)), **named}
    label = rows[1]["other"]
    second = [str(tmp_path / rows[1]["image"]), "other", label, label, "right", "me", ""]
    more = write_rows(tmp_path / "d.csv", header, [*first, second])
    audit(options=given, out=tmp_path / "out", folds=2, full=True, show=3, decisions=more)
    assert [row["when"] for row in page_of(tmp_path / "out")["earlier"]] == ["then", ""]
    other = [second, [*first[0][:3], first[0][2], "right", "you", ""]]
    with pytest.raises(DataError, match=r"e\.csv:3: 0\.jpg, class 'bright' is decided differently in .*c\.csv"):
        audit(
            options=given,
            out=tmp_path / "out",
            folds=2,
            full=True,
            decisions=write_rows(tmp_path / "e.csv", header, other),
        )


def test_names_that_predictions_have_escaped_stay_so_and_their_decisions_count(tmp_path, seed):
    logits, _, given = made(seed, 60)
    names = [r"caf\xe9.jpg", r"two\x0alines.jpg", *(f"{row}.jpg" for row in range(2, 60))]
    path = write_predictions(tmp_path / "p.csv", logits, given, names)
    audit([path], show=200, budget=60)
    entries = [row for row in read(tmp_path / "entries.csv") if "\\" in row["image"]]
    assert {row["image"] for row in entries} == set(names[:2])
    assert set(names[:2]) <= {entry["image"] for entry in page_of(tmp_path)["entries"]}
    found = audit([path], show=0, decisions=decided_of(tmp_path, entries), out=tmp_path / "again")
    assert len(found.parts[0].decided) == len(entries) == 2 * len(NAMES)


def test_a_decided_entry_is_last_in_either_order_even_the_only_one_of_its_class(tmp_path, seed):
    logits, _, given = made(seed, 60)
    given[:, 2] = -1
    given[0, 2] = 1  # found wrong, the class is expected nowhere, and what is divided by nothing is largest
    path = write_predictions(tmp_path / "p.csv", logits, given)
    file = write_rows(
        tmp_path / "c.csv", ["image", "class", "given", "label", "decision"], [["0.jpg", "'=dog", 1, 0, "wrong"]]
    )
    for order in ("errors", "mean_ap"):
        audit([path], show=0, order=order, decisions=file, out=tmp_path / order)
        assert [row["decided"] for row in read(tmp_path / order / "entries.csv")] == [""] * 120 + ["yes"]


def test_a_decision_of_another_machine_is_of_the_image_with_that_end_of_its_path(tmp_path, seed):
    """As `data.corrections` finds it: by the last three parts."""
    logits, _, given = made(seed, 60)
    path = write_predictions(tmp_path / "p.csv", logits, given, [f"/photos/a/b/{row}.jpg" for row in range(60)])
    rows = [["/elsewhere/a/b/7.jpg", "cat", given[7, 1], 1 - given[7, 1], "wrong"], ["c/b/8.jpg", "cat", 1, 0, "wrong"]]
    file = write_rows(tmp_path / "c.csv", ["image", "class", "given", "label", "decision"], rows)
    assert audit([path], show=0, decisions=file).parts[0].decided == {(7, 1)}


def test_what_was_decided_of_another_spelling_is_of_the_same_entry(tmp_path, seed):
    logits, _, given = made(seed, 60)
    names = [f"{'left' if row % 2 else 'right'}/{row // 2}.jpg" for row in range(60)]
    path = write_predictions(tmp_path / "p.csv", logits, given, [f"/photos/{name}" for name in names])
    cell = given[0, 1]
    header = ["image", "class", "given", "label", "decision", "who", "when", "split"]
    rows = [
        ["right/0.jpg", "cat", cell, cell, "unsure", "me", "", "train"],
        ["left\\1.jpg", "cat", given[3, 1], 1 - given[3, 1], "wrong", "me", "", "train"],
        ["2.jpg", "cat", 1, 0, "wrong", "me", "", "train"],  # there are two
    ]
    found = audit([path], show=200, decisions=write_rows(tmp_path / "c.csv", header, rows))
    assert found.parts[0].decided == {(3, 1)}
    page = page_of(tmp_path)
    assert [row["image"] for row in page["earlier"]] == ["/photos/right/0.jpg", "/photos/left/1.jpg", "2.jpg"]
    (again,) = [one for one in page["entries"] if one["image"] == "/photos/right/0.jpg" and one["class"] == "cat"]
    assert again["split"] == "train"  # by image, class and split the page knows that it was decided before
    assert {one["split"] for one in page["entries"] if one is not again} == {""}


def test_files_of_an_earlier_call_are_not_said_to_be_of_this_one(tmp_path, seed, capsys):
    logits, _, given = made(seed, 60)
    path = str(write_predictions(tmp_path / "p.csv", logits, given))
    for options, more in ((["--show=3", "--budget=2"], ", next.csv, audit.html"), (["--show=0"], "")):
        assert main(["audit", path, *options]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert f"entries.csv, suggestions.csv, classes.csv{more}: {tmp_path}" in said
        assert ("decide in a browser" in said) == bool(more)


def test_a_page_for_review_shows_nothing_that_is_decided(tmp_path, seed):
    logits, _, given = made(seed, 60)
    path = write_predictions(tmp_path / "p.csv", logits, given)
    audit([path], show=0)
    file = decided_of(tmp_path, read(tmp_path / "entries.csv")[:30])
    audit([path], show=50, order="review", decisions=file)
    shown = {(one["image"], one["class"]) for one in page_of(tmp_path)["entries"]}
    assert len(shown) == 50
    assert not shown & {(row["image"], row["class"]) for row in read(file)}


def test_the_page_shows_images_of_files_and_says_which_are_gone(tmp_path, seed, caplog):
    logits, _, given = made(seed, 40)
    names = [f"{row}.jpg" for row in range(40)]
    for seed_of, name in enumerate(names[:20]):
        write_image(tmp_path / "photos" / name, (32, 40), seed=seed_of)
    path = write_predictions(tmp_path / "p.csv", logits, given, names)
    audit([path], image_root=tmp_path / "photos", show=30)
    page = (tmp_path / "audit.html").read_text()
    assert page.count("/9j/") >= 8
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "images on the page cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("header", "options", "sentence"),
    [
        (["image", "cat", "dog"], {}, "holds predictions and no labels"),
        (["image", "cat", "truth:cat"], {"options": ["--config", "x"]}, "files of predictions are judged as they are"),
        (["image", "cat", "truth:cat"], {"sure": 0.3}, "sure is a probability"),
        (["image", "cat", "truth:cat"], {"decisions": "p.csv"}, "no column 'class'"),
    ],
)
def test_what_cannot_be_judged_is_refused(tmp_path, monkeypatch, header, options, sentence):
    monkeypatch.chdir(tmp_path)
    path = write_rows(tmp_path / "p.csv", header, [[f"{n}.jpg", 0.1 + 0.8 * (n % 2), n % 2] for n in range(8)])
    with pytest.raises((ConfigError, DataError), match=sentence):
        audit([path], **options)
    assert not (tmp_path / "entries.csv").exists()


@pytest.fixture
def config(tmp_path):
    """Thirty small images, of whose two classes one is in patches of light; every third has no label of it."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(36):
        is_bright = bool(rng.integers(2))
        write_image(tmp_path / f"{n}.jpg", (32, 32), seed=n)
        rows.append([f"{n}.jpg", int(is_bright), int(rng.integers(2)), f"p{n // 2}", "test" if n >= 30 else "train"])
    write_rows(tmp_path / "t.csv", ["image", "bright", "other", "patient", "split"], rows)
    path = tmp_path / "t.yaml"
    data = {
        "path": str(tmp_path / "t.csv"), "label_columns": ["bright", "other"], "split_column": "split",
        "group_column": "patient", "val_fraction": 0.2, "image_size": 32, "batch_size": 8, "num_workers": 0,
    }  # fmt: skip
    path.write_text(yaml.safe_dump({
        "data": {"class_path": "CSVDataModule", "init_args": data},
        "model": {"class_path": "Classifier", "init_args": {"backbone": "test_resnet"}},
        "trainer": {"max_epochs": 1, "enable_progress_bar": False, "accelerator": "cpu"},
    }))  # fmt: skip
    return path


@pytest.fixture
def calls(monkeypatch):
    """What is called in processes of its own is called here, which is faster; and noted."""
    made = []

    def call(*arguments):
        made.append(arguments)
        assert main(list(arguments)) == 0

    monkeypatch.setattr(stages, "call", call)
    monkeypatch.setattr(audit_folds, "call", call)
    return made


def test_models_judge_images_that_they_have_not_seen(config, tmp_path, calls):
    out = tmp_path / "out"
    found = audit(options=["--config", str(config)], out=out, folds=2, full=True, splits=("train", "test"), show=5)
    assert [part.split for part in found.parts] == ["train", "test"]
    assert len(read(out / "entries.csv")) == 2 * 36
    assert (out / "audit.html").is_file()
    held = [{row["image"] for row in read(out / f"fold-{n}" / "train_predictions.csv")} for n in (1, 2)]
    assert not held[0] & held[1]
    assert len(held[0] | held[1]) == 30
    table = {str(tmp_path / row["image"]): row["patient"] for row in read(tmp_path / "t.csv")}
    patients = [{table[image] for image in images} for images in held]
    assert not patients[0] & patients[1]
    again = read(out / "train_predictions.csv")
    assert {row["image"]: row["truth:bright"] for row in again} == {
        str(tmp_path / row["image"]): row["bright"] for row in read(tmp_path / "t.csv") if row["split"] == "train"
    }
    before = len(calls)
    assert before == 2 * 3
    same = audit(options=["--config", str(config)], out=out, folds=2, full=True, splits=("train", "test"), show=0)
    assert len(calls) == before  # nothing is done twice
    assert same.summary == found.summary


def test_an_audit_that_is_stopped_goes_on(config, tmp_path, calls, monkeypatch):
    out = tmp_path / "out"
    done = audit_folds.call

    def stopped(*arguments):
        if arguments[0] == "predict":
            raise Stopped(2)
        done(*arguments)

    monkeypatch.setattr(audit_folds, "call", stopped)
    with pytest.raises(Stopped):
        audit(options=["--config", str(config)], out=out, folds=2, full=True, show=0)
    monkeypatch.setattr(audit_folds, "call", done)
    audit(options=["--config", str(config)], out=out, folds=2, full=True, show=0)
    assert [one[0] for one in calls] == ["fit", "predict", "fit", "predict"]
    with pytest.raises(ConfigError, match="was begun with other arguments"):
        audit(options=["--config", str(config), "--data.seed=5"], out=out, folds=2, full=True, show=0)


def test_images_that_cannot_be_read_are_left_out_in_one_call(config, tmp_path, monkeypatch, caplog):
    def call(*arguments):
        if main(list(arguments)):
            raise ConfigError("as a process of its own")

    monkeypatch.setattr(stages, "call", call)
    monkeypatch.setattr(audit_folds, "call", call)
    for name in ("0.jpg", "1.jpg"):
        (tmp_path / name).write_text("no image")
    options = ["--config", str(config), "--data.on_error=skip"]
    audit(options=options, out=tmp_path / "out", folds=2, full=True, show=0)
    assert len(read(tmp_path / "out" / "entries.csv")) == 2 * 28
    assert "2 images of the train split are left out" in caplog.text


@pytest.mark.parametrize("change", ["label", "row"])
def test_models_of_other_labels_than_there_are_now_judge_none(config, tmp_path, calls, change):
    arguments = {"options": ["--config", str(config)], "out": tmp_path / "out", "folds": 2, "full": True, "show": 0}
    audit(**arguments)
    rows = read(tmp_path / "t.csv")
    if change == "label":
        rows[3]["bright"] = 1 - int(rows[3]["bright"])
    else:
        del rows[3]
    write_rows(tmp_path / "t.csv", list(rows[0]), [list(row.values()) for row in rows])
    with pytest.raises(ConfigError, match=r"--out: .* was made of other .*labels than there are now"):
        audit(**arguments)
    (tmp_path / "out" / "fold-1.json").unlink()  # as of an audit by an earlier version
    if change == "row":
        with pytest.raises(DataError, match=r"3\.jpg was in the train split when it was predicted"):
            audit(**arguments)


def test_more_folds_than_patients_are_refused_and_fewer_may_follow(config, tmp_path, calls):
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="15 patient.* cannot be dealt into 16 folds"):
        audit(options=["--config", str(config)], out=out, folds=16, full=True, show=0)
    assert not calls
    assert not list(out.glob("*"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "the backbone has random weights"),
        (["--data.protocol.known_fraction=0.5"], "leave data.protocol out"),
        (["--data.fold=1/2"], "it says itself what --data.fold is"),
        (["--run_dir=x"], "it says itself what --run_dir is"),
    ],
)
def test_a_config_that_cannot_be_audited_is_refused_before_any_training(config, tmp_path, calls, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        audit(options=["--config", str(config), *options], out=tmp_path / "out")
    assert not calls


def test_the_effect_is_of_both_labels_by_both_labels(config, tmp_path, monkeypatch):
    monkeypatch.setattr(audit_effect, "RATES", {})
    rows = read(tmp_path / "t.csv")
    tests = [row for row in rows if row["split"] == "test"]
    header = ["image", "class", "given", "label", "decision", "who", "when"]
    changed = [[row["image"], "bright", row["bright"], 1 - int(row["bright"]), "wrong", "me", ""] for row in tests[:2]]
    trained = [[row["image"], "other", row["other"], 1 - int(row["other"]), "wrong", "me", ""] for row in rows[:5]]
    file = write_rows(tmp_path / "c.csv", header, [*changed, *trained])
    own = yaml.safe_load(config.read_text())
    own["data"]["init_args"]["corrections"] = str(file)  # which training on given labels must do without
    config.write_text(yaml.safe_dump(own))
    found = effect(
        file, options=["--config", str(config), "--data.val_fraction=0.4"], out=tmp_path / "effect", seeds=1, jobs=1
    )
    assert found.changed == 2
    written = read(tmp_path / "effect" / "effect.csv")
    assert {(row["metric"], row["trained_on"], row["judged_by"]) for row in written} == {
        (metric, one, other)
        for metric in ("mAP", "micro AP")
        for one in (GIVEN, CORRECTED)
        for other in (GIVEN, CORRECTED)
    }
    # By hand: the predictions of the training on given labels, judged by the corrected ones.
    from sklearn.metrics import average_precision_score

    run = next((tmp_path / "effect" / "runs" / "0" / "given_labels").glob("*/*/test_predictions.csv"))
    predicted = {Path(row["image"]).name: row for row in read(run)}
    flipped = {row["image"] for row in tests[:2]}
    truth = [int(row["bright"]) ^ (row["image"] in flipped) for row in tests] + [int(row["other"]) for row in tests]
    scores = [float(predicted[row["image"]][name]) for name in ("bright", "other") for row in tests]
    value = next(
        float(row["value"]) for row in written
        if (row["metric"], row["trained_on"], row["judged_by"]) == ("micro AP", GIVEN, CORRECTED)
    )  # fmt: skip
    assert value == pytest.approx(average_precision_score(truth, scores), abs=1e-6)


@pytest.mark.parametrize("drawn", [True, False])
def test_splits_that_are_drawn_are_those_of_the_audit_for_all_seeds(config, tmp_path, monkeypatch, drawn):
    plans = []
    monkeypatch.setattr(audit_effect, "run_plan", lambda plan, *_: plans.append(plan) or 1 / 0)
    own = yaml.safe_load(config.read_text())
    own["data"]["init_args"] |= {
        "seed": 7,
        **({"split_column": None, "group_column": None, "val_fraction": 0.0} if drawn else {}),
    }
    own["data"]["init_args"]["label_columns"] = ["bright", "other"]
    config.write_text(yaml.safe_dump(own))
    file = write_rows(tmp_path / "c.csv", ["image", "class", "given", "label"], [["0.jpg", "bright", 1, 0]])
    study = tmp_path / "study.yaml"
    given = {"config": str(config), "methods": {"a": {}, "b": {"model.optim.lr": 0.1}}, "seeds": 2}
    asked = [{"options": ["--config", str(config)]}, {"study": study}, {"study": study, "options": ["--data.seed=3"]}]
    study.write_text(yaml.safe_dump(given))
    for one in asked:
        with pytest.raises(ZeroDivisionError):
            effect(file, out=tmp_path / "effect", **one)
    study.write_text(yaml.safe_dump({**given, "methods": {"own": {"data.seed": 3}, **given["methods"]}}))
    with pytest.raises(ZeroDivisionError):
        effect(file, study=study, out=tmp_path / "effect")
    expected = "7" if drawn else None  # also where the first of the methods has a seed of its own
    assert [plan.options.get("data.seed") for plan in plans] == [expected, expected, "3", expected]


def test_an_effect_of_other_corrections_than_its_own_is_refused(config, tmp_path):
    file = write_rows(tmp_path / "c.csv", ["image", "class", "given", "label", "decision"], [])
    with pytest.raises(ConfigError, match="leave that out"):
        effect(file, options=["--config", str(config), f"--data.corrections={file}"], out=tmp_path / "effect")
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({
        "config": str(config), "methods": {"a": {}, "b": {"data.corrections": str(file)}}, "seeds": 1,
    }))  # fmt: skip
    with pytest.raises(ConfigError, match="leave that out of the study"):
        effect(file, study=study, out=tmp_path / "effect")


@pytest.mark.parametrize(("share", "text"), [(0.5, "50.0"), (0.9995, "99.95"), (0.99996, "99.996"), (1.0, "100.0")])
def test_a_share_below_one_is_not_said_to_be_all(share, text):
    assert _percent(share) == text
