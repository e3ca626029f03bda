"""Study files: what they say, and what is wrong with them, in one sentence."""

from pathlib import Path

import pytest

from mlcv.errors import ConfigError
from mlcv.studies.plan import Plan, read_plan, slug
from mlcv.studies.presets import BUDGET, LOSSES, preset

FILE = """
config: digits/bce
options: {trainer.max_epochs: 2, data.num_train: 64}
methods:
  a: {model.loss: mlcv.losses.BCELoss, under: {all: {model.loss.unknown: negative}}}
  b: {model.loss: {class_path: mlcv.losses.FocalLoss, init_args: {gamma: 1.5}}, model.optim.lr: 0.1}
  c: {config: digits/pu_mlc, tune: {model.gamma: [0.5, 1.0]}, model.weights: "{a}/checkpoints/best.ckpt"}
conditions: {all: {}, few: {data.protocol.known_fraction: 0.1}}
tune: {model.optim.lr: [0.001, 0.01]}
seeds: 2
baseline: b
"""


def plan_of(tmp_path, text=FILE):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return read_plan(path)


def test_a_grid_has_a_run_of_each_method_condition_and_seed(tmp_path):
    plan = plan_of(tmp_path)
    runs = list(plan.runs(Path("out")))
    assert [(run.seed, run.condition, run.method) for run in runs] == [
        (seed, condition, method) for seed in (0, 1) for condition in ("all", "few") for method in "abc"
    ]
    assert len({run.place for run in runs}) == len(runs)
    first, second, third = runs[3:6]
    config, *options = first.arguments[0]
    assert config.endswith("digits/bce.yaml")
    assert options == [
        "--trainer.max_epochs=2", "--data.num_train=64", "--data.protocol.known_fraction=0.1",
        "--model.loss=mlcv.losses.BCELoss", "--model.optim.lr=0.001", "--seed_everything=0", "--data.seed=0",
        "--data.protocol.seed=0", "--data.policy.seed=0",
    ]  # fmt: skip
    assert "--model.optim.lr=0.01" in first.arguments[1]
    assert runs[0].arguments[0][3:5] == ("--model.loss=mlcv.losses.BCELoss", "--model.loss.unknown=negative")
    assert second.settings == ({},)  # its rate is its own
    assert '--model.loss={"class_path": "mlcv.losses.FocalLoss", "init_args": {"gamma": 1.5}}' in second.arguments[0]
    assert third.needs == {"a"}
    assert third.arguments[1][0].endswith("digits/pu_mlc.yaml")
    assert "--model.weights=out/runs/0/few/a/checkpoints/best.ckpt" in third.arguments[1]
    assert [run.arguments[0][-1] for run in runs[6:]] == ["--data.policy.seed=1"] * 6


def one_run(tmp_path, text, method="a", condition="x"):
    plan = plan_of(tmp_path, f"config: digits/bce\n{text}\n")
    return next(run for run in plan.runs(Path("out")) if (run.method, run.condition) == (method, condition))


RATE = "model.optim.lr"


@pytest.mark.parametrize(("text", "rates"), [
    ("methods: {a: {}}\nconditions: {x: {}}\ntune: {model.optim.lr: [1, 2]}", [1, 2]),
    ("methods: {a: {}}\nconditions: {x: {}}\noptions: {model.optim.lr: 3}", [3]),
    ("methods: {a: {}}\nconditions: {x: {model.optim.lr: 3}}", [3]),
    ("methods: {a: {under: {x: {model.optim.lr: 3}}}}\nconditions: {x: {}}", [3]),
    ("methods: {a: {tune: {model.optim.lr: [1, 2]}, under: {x: {model.optim.lr: 3}}}}\nconditions: {x: {}}", [3]),
    ("methods: {a: {tune: {model.optim.lr: [1, 2]}}}\nconditions: {x: {}}\noptions: {model.optim.lr: 3}", [1, 2]),
    ("methods: {a: {tune: {}}}\nconditions: {x: {}}\noptions: {model.optim.lr: 3}", [3]),
])  # fmt: skip
def test_what_is_set_is_not_tried(tmp_path, text, rates):
    given = one_run(tmp_path, text).arguments
    assert [[word for word in words if RATE in word] for words in given] == [[f"--{RATE}={rate}"] for rate in rates]


@pytest.mark.parametrize("text", [
    "methods: {a: {model.loss: X}}\nconditions: {x: {model.loss.unknown: negative}}",
    "options: {model.loss.unknown: negative}\nmethods: {a: {model.loss: X}}\nconditions: {x: {}}",
    "methods: {a: {model.loss.unknown: negative, tune: {model.loss: [X]}}}\nconditions: {x: {}}",
    "options: {model.loss.unknown: negative}\nmethods: {a: {model: M, model.loss: X}}\nconditions: {x: {}}",
])  # fmt: skip
def test_a_class_comes_before_its_options(tmp_path, text):
    words = [word for word in one_run(tmp_path, text).arguments[0] if word.startswith("--model")]
    assert [word for word in words if RATE not in word][-2:] == ["--model.loss=X", "--model.loss.unknown=negative"]
    assert "--model=M" not in words[1:]


@pytest.mark.parametrize("text", [
    "methods: {é: {}, a: {under: {x: {start_from: '{é}/best.ckpt'}}}}\nconditions: {x: {}}",
    "methods: {é: {}, a: {tune: {start_from: ['{é}/best.ckpt']}}}\nconditions: {x: {}}",
    "methods: {é: {}, a: {model.ensemble: [{from: '{é}/best.ckpt'}]}}\nconditions: {x: {}}",
])  # fmt: skip
def test_what_a_run_starts_from_is_found_wherever_it_is_named(tmp_path, text):
    assert one_run(tmp_path, text).needs == {"é"}
    assert set(plan_of(tmp_path, f"config: digits/bce\n{text}\n").only(["a"]).methods) == {"é", "a"}


def test_names_of_any_kind_are_names(tmp_path):
    text = "config: digits/bce\nmethods: {on: {under: {1.0: {a: 1}}}, 7: {}}\nconditions: {1.0: {}}\nbaseline: 7\n"
    plan = plan_of(tmp_path, text)
    assert list(plan.methods) == ["True", "7"]
    assert next(plan.runs(Path("out"))).arguments[0][1] == "--a=1"


def test_some_methods_bring_the_baseline_and_what_they_start_from(tmp_path):
    plan = plan_of(tmp_path)
    assert list(plan.only(["c"]).methods) == ["a", "b", "c"]
    assert list(plan.only(["a"]).methods) == ["a", "b"]


@pytest.mark.parametrize(("before", "after", "words"), [
    ("baseline: b", "baseline: bb", "baseline: there is no 'bb'; did you mean 'b'"),
    ("baseline: b", "metrics: [mAPP]", "no 'mAPP'; did you mean 'mAP'"),
    ("baseline: b", "metrics: mAP", "metrics is a list of names, got 'mAP'"),
    ("baseline: b", "baseline: [b]", "there is no \"['b']\""),
    ("config: digits/pu_mlc,", "is_listed: 'no',", "is_listed is true or false"),
    ("{a}/", "{c}/", "methods: c: each would start from a run that needs its own first"),
    ("all: {}, few", "all: {model.weights: '{a}/best.ckpt'}, few", "methods: a, b, c: each would start from"),
    ("  b:", "  a:", "'a' is there twice"),
    ("few:", "1: {}, '1':", "'1' is there twice"),
    ("  b:", "  seed:", "give the method 'seed' another name"),
    ("baseline: b", "sort_by: AP", "there is no 'AP'"),
    ("baseline: b", "plots: dots", "no 'plots'; did you mean 'plot'"),
    ("seeds: 2", "seeds: 0", "seeds is at least 1"),
    ("few:", "a l l:", None),
    ("few:", "ALL:", "would have one folder"),
    ("under: {all:", "under: {al:", "under: there is no 'al'; did you mean 'all'"),
    ("  b:", "  a/:", "would have one folder"),
    ("  b:", "  b, c:", "no comma"),
    ("[0.001, 0.01]", "0.001", "is a list of values to try"),
    ("config: digits/bce", "config: digits/bxe", "did you mean"),
    ("config: digits/bce", "", "has no config"),
    ("  a: {model.loss: mlcv.losses.BCELoss,", "  a: {data.root: '{c}/x',", "a, c: each would start from"),
    ("methods:", "methods: 3\nconditionss:", "there is no 'conditionss'"),
])  # fmt: skip
def test_what_is_wrong_in_a_file_is_said_in_one_sentence(tmp_path, before, after, words):
    text = FILE.replace(before, after)
    assert text != FILE
    if words is None:
        plan_of(tmp_path, text)
        return
    with pytest.raises(ConfigError) as error:
        plan_of(tmp_path, text)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_method_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="--methods: there is no 'd'"):
        plan_of(tmp_path).only(["a", "d"])


def test_names_make_folders():
    assert slug("10 % known") == "10_percent_known"
    assert slug("..") == "_"
    assert "/" not in slug("../a/b")
    long = slug("é" * 300), slug("é" * 301)
    assert max(len(name.encode()) for name in long) < 200
    assert long[0] != long[1]


def test_presets_hold_the_bias_equal_and_leave_what_the_user_sets():
    losses = preset("losses", ["x.yaml"], {"model.optim.lr": "0.1"})
    assert len(losses.methods) >= 10
    assert losses.options["model.prior_bias"] is True
    assert all(not method.tune for method in losses.methods.values())
    assert preset("losses", ["x.yaml"], {"model.prior_bias": "false"}).options["model.prior_bias"] == "false"
    assert list(losses.methods) == list(LOSSES)
    fractions = preset("fractions", ["x.yaml"], {})
    assert fractions.plot == "curves"
    assert [c["data.protocol.known_fraction"] for c in fractions.conditions.values()] == [0.05, 0.1, 0.2, 0.5, 1]
    with pytest.raises(ConfigError, match="losses, fractions or budget"):
        preset("loses", ["x.yaml"], {})


def test_budgets_cost_the_same_and_votes_err_less():
    *conditions, (everything, last) = preset("budget", ["x.yaml"], {}).conditions.items()
    assert "3.3 times the cost" in everything
    assert last == {
        "data.protocol.flip_positives": pytest.approx(0.2),
        "data.protocol.flip_negatives": pytest.approx(0.02),
    }
    for name, options in conditions:
        votes = int(name.split(", ")[2].split()[0])
        cost = options["data.protocol.image_fraction"] * options["data.protocol.known_fraction"] * votes
        assert cost == pytest.approx(BUDGET, rel=0.01)
    three = next(options for name, options in conditions if "3 votes" in name)
    assert three["data.protocol.flip_positives"] == pytest.approx(3 * 0.2**2 * 0.8 + 0.2**3)


def test_a_plan_needs_methods():
    with pytest.raises(ConfigError, match="no methods"):
        Plan({}, {"all": {}})


def test_runs_wait_for_those_that_they_start_from(tmp_path):
    plan = plan_of(
        tmp_path,
        """
config: digits/bce
tune: {}
reference: teacher
metrics: [mAP, KL, stored, AUROC of 3]
methods:
  teacher: {then: [[predict, --ckpt_path, "{teacher}/0/x.ckpt"]], stored: "{teacher}/soft.npy"}
  student: {model.weights: "{teacher}/soft.npy", data.root: "d/{seed}", is_listed: false}
""",
    )
    teacher, student = list(plan.runs(Path("out")))[:2]
    folder = "out/runs/0/labels_as_they_are/teacher"
    assert teacher.then == (("predict", "--ckpt_path", f"{folder}/0/x.ckpt"),)
    assert teacher.stored == f"{folder}/soft.npy"
    assert (teacher.reference, student.reference) == (None, folder)
    assert (teacher.needed, student.needed) == (set(), {("labels as they are", "teacher", 0)})
    assert student.settings == ({},)
    assert "--data.root=d/0" in student.arguments[0]
    assert plan.listed == ["teacher"]


@pytest.mark.parametrize(("line", "words"), [
    ("then: [predict]", "then is a list of commands"),
    ("then: [[fit, --config, x]]", "then is a list of commands"),
    ("under: {none: {}}", "there is no 'none'"),
])  # fmt: skip
def test_what_is_wrong_with_a_method_is_said(tmp_path, line, words):
    with pytest.raises(ConfigError, match=words):
        plan_of(tmp_path, f"config: digits/bce\nmethods:\n  a: {{{line}}}\n")


def test_divergence_needs_a_reference(tmp_path):
    with pytest.raises(ConfigError, match="there is no 'KL'"):
        plan_of(tmp_path, "config: digits/bce\nmetrics: [KL]\nmethods: {a: {}}\n")


def test_shipped_studies_are_found_by_name_where_a_folder_has_it_too(tmp_path, monkeypatch):
    (tmp_path / "studies" / "hello").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert read_plan("studies/hello").reference == "teacher"
