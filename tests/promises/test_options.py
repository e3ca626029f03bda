"""Whatever stands behind an option, the command works or ends in one sentence: never in a traceback."""

import os
import shutil
from functools import partial

import pytest
import yaml

from mlcv.cli import main
from mlcv.commands.mistakes import blaming_options
from mlcv.errors import ConfigError, find_user_error

DATA = [
    "--data=DigitScenesDataModule", "--data.num_train=16", "--data.num_val=8", "--data.num_test=8",
    "--data.batch_size=8", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false", "--trainer.max_epochs=1",
]  # fmt: skip
METHODS = {
    "Classifier": ["--model=Classifier", "--model.backbone=test_resnet", "--model.loss=AsymmetricLoss"],
    "PUMLC": ["--model=PUMLC", "--model.backbone=test_resnet"],
    "PatchCT": ["--model=PatchCT", "--model.backbone=test_vit"],
}
WRONG = [
    "", "0", "-1", "1", "2", "3", "1e9", "1e-9", "nan", "inf", "null", "true", "false", "[]", "{}", "abc", "[1,2]",
    "[a]", "{a: 1}", "1.5", "-0.5", "../x", "/nonexistent/x", "99999999999", "[[1]]", "a,b", "None", "[null]", "auto",
    "max", "adam", "é", "0x10", "1e400", "'", "{", "[", ": :", "&a *a", "!!python/name:os.system", "DigitScenes",
]  # fmt: skip
TRIALS = 30
"""In the fast test; a thousand with --run-slow."""
# A number that is right, but asks for more than a test can wait for.
PATIENT = (
    "num_workers", "devices", "num_nodes", "num_train", "num_val", "num_test", "image_size", "digits", "clutter",
    "max_epochs", "min_epochs", "max_steps", "min_steps", "--steps", "--warmup",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("options")


@pytest.fixture(scope="module")
def commands(folder, python, tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    return partial(python.mlcv, cwd=folder, environment={**os.environ, "MLCV_CACHE": cache}, timeout=60)


@pytest.fixture(scope="module")
def run_folder(folder, commands):
    ended = commands("fit", *DATA, *METHODS["Classifier"], "--run_dir", "done", "--test_after_fit=true")
    assert ended.returncode == 0, ended.stderr
    ended = commands("predict", "--ckpt_path", "done/checkpoints/best.ckpt", "--predictions", "p.csv")
    assert ended.returncode == 0, ended.stderr
    return folder / "done"


def leaves(tree, name=""):
    """Options of a printed configuration, with their values."""
    for key, value in tree.items():
        inner = f"{name}.{key}".lstrip(".").replace(".init_args", "")
        if isinstance(value, dict) and value:
            yield from leaves(value, inner)
        elif not inner.endswith("class_path"):
            yield inner, value


def near(value, rng):
    """Neighbours of a valid value, and what is none."""
    if isinstance(value, bool):
        return [str(not value).lower(), "2", "yes"]
    if isinstance(value, int):
        return [str(value + 1), str(value - 1), str(-value), str(value + 0.5)]
    if isinstance(value, float):
        return [str(value * 10), str(-value), str(value + 1), str(int(value))]
    if isinstance(value, str) and value:
        place = rng.integers(len(value))
        return [value[:place] + value[place + 1 :], value.upper(), value + "x", value[::-1], f"[{value}]"]
    return WRONG


def judged(ended, arguments):
    """What is wrong with how a command ended; None if nothing is."""
    status, said = ended.returncode, ended.stdout + ended.stderr
    if status not in (0, 2):
        return f"{' '.join(arguments)}\n{status}\n{said[-500:]}"
    if status == 2 and ("Traceback" in said or "error: " not in said or "Where it arose" in said):
        return f"{' '.join(arguments)}\nno sentence\n{said[-1500:]}"
    return None


def trials(request):
    return 1000 if request.config.getoption("--run-slow") else TRIALS


def drawn(value, rng):
    choices = [*near(value, rng), *near(value, rng), *WRONG]
    return choices[rng.integers(len(choices))]


def test_no_option_of_fit_ends_in_a_traceback(commands, folder, numpy_rng, request):
    options = {}
    for method, given in METHODS.items():
        printed = commands("fit", *DATA, *given, "--print_config").stdout
        options[method] = dict(leaves(yaml.safe_load(printed[printed.index("seed_everything") :])))
    wrong = []
    for _ in range(trials(request)):
        method = list(METHODS)[numpy_rng.integers(len(METHODS))]
        names = [name for name in options[method] if not name.endswith(PATIENT)]
        name = names[numpy_rng.integers(len(names))]
        arguments = ["fit", *DATA, *METHODS[method], f"--{name}={drawn(options[method][name], numpy_rng)}"]
        wrong.append(judged(commands(*arguments), arguments))
        shutil.rmtree(folder / "runs", ignore_errors=True)
    assert not any(wrong), "\n\n".join(filter(None, wrong))


def test_no_option_of_the_other_commands_does(commands, folder, run_folder, numpy_rng, request):
    checkpoint = str(run_folder / "checkpoints" / "best.ckpt")
    given = {
        "evaluate": ["p.csv", "--truth", "done/test_predictions.csv"],
        "calibrate": ["done/val_predictions.csv"],
        "ensemble": ["p.csv", "done/test_predictions.csv"],
        "report": ["done"],
        "export": ["--ckpt_path", checkpoint, "--formats", "pt2"],
        "bench": [*DATA, *METHODS["Classifier"], "--steps", "1", "--warmup", "0"],
        "test": ["--ckpt_path", checkpoint],
        "validate": ["--ckpt_path", checkpoint],
        "predict": ["--ckpt_path", checkpoint, "--predictions", "q.csv"],
    }
    names = {}
    for command in given:
        helped = commands(command, "--help").stdout.replace("[", " ").split()
        found = sorted({word.rstrip(",]=") for word in helped if word.startswith("--")})
        names[command] = [name for name in found if name.strip("-").isidentifier() or "." in name]
    before = set(folder.iterdir())
    wrong = []
    for _ in range(trials(request)):
        command = list(given)[numpy_rng.integers(len(given))]
        name = names[command][numpy_rng.integers(len(names[command]))]
        if name.endswith((*PATIENT, "--help", "--print_config", "resamples")):
            continue
        arguments = [command, *given[command], f"{name}={drawn(None, numpy_rng)}"]
        wrong.append(judged(commands(*arguments), arguments))
        for path in set(folder.iterdir()) - before:  # a file `auto`, say, would be read for what `auto` means
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not any(wrong), "\n\n".join(filter(None, wrong))


@pytest.mark.parametrize(
    ("options", "sentence"),
    {
        "--model.optim.name=addam": "timm has no optimizer 'addam'; it has adam,",
        "--model.optim.name=adahessian": "adahessian needs second derivatives",
        "--trainer.accelerator=tpu": "a package is not installed (Requirement 'torch_xla",
        "--trainer.strategy=dpp": "the Trainer refuses its options (You selected an invalid strategy",
        "--trainer.logger=WandbLogger": "a package is not installed (Requirement 'wandb",
        "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=vl": "any of the following: `train/loss`",
        "--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.monitor=vl": "could not find the monitored key",
        "--trainer.callbacks+=LearningRateFinder": "LearningRateFinder cannot move model.optim.lr",
        "--trainer.val_check_interval=100": "the Trainer refuses its options (`val_check_interval` (100) must be less",
        "--trainer.check_val_every_n_epoch=0": "option 'trainer.check_val_every_n_epoch' is at least 1, got 0",
        "--model.loss.gama=2": "did you mean 'model.loss.gamma",
        "--model.loss=torch.nn.BCEWithLogitsLoss --model.loss.reduction=none": "model.loss: has shape (8, 10), and one",
        "--model.loss=BCELoss": "Several are called so: write mlcv.losses.BCELoss",
        "--model.backbone=crossvit_tiny_240": "crossvit_tiny_240 takes no images of 64 x 64",
        "--model.backbone=test_vit --data.image_size=50": "test_vit takes no images of 50 x 50",
        "--model.freeze=null": "option 'model.freeze' cannot be null",
        "--model=PUMLC --model.head.width=-1": "SemanticGraphHead cannot be built from its options (RuntimeError: ",
    }.items(),
    ids=str,
)  # fmt: skip
def test_the_usual_mistakes_are_told_in_a_sentence(commands, options, sentence):
    given = METHODS["Classifier"] if "--model=" not in options else METHODS["PUMLC"]
    ended = commands("fit", *DATA, *given, *options.split())
    said = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == 2, ended
    assert said.startswith("mlcv: error: ")
    assert sentence in said


@pytest.mark.parametrize("backbone", ["coat_tiny", "efficientvim_m1"])
def test_odd_backbones_train(commands, backbone):
    ended = commands("fit", *DATA, "--model=Classifier", f"--model.backbone={backbone}")
    assert ended.returncode == 0, ended


def test_an_error_that_nobody_foresaw_is_a_sentence_and_a_file(capsys, monkeypatch, tmp_path):
    def fails(_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("mlcv.commands.calibrate.main", fails)
    monkeypatch.setenv("MLCV_RUN_DIR", str(tmp_path))
    assert main(["calibrate"]) == 2
    (kept,) = tmp_path.iterdir()
    assert not kept.is_symlink()
    assert capsys.readouterr().err == f"mlcv: error: ZeroDivisionError: a bug. Where it arose: {kept}\n"
    assert "in fails" in kept.read_text()
    monkeypatch.setenv("MLCV_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["calibrate"])


def test_an_error_that_was_dealt_with_is_not_what_is_told():
    """Neither where a package that is absent has a substitute, nor where an option is refused."""

    def fails():
        try:
            import no_such_package  # noqa: F401
        except ImportError:
            raise RuntimeError("the real cause")  # noqa: B904

    with pytest.raises(RuntimeError) as raised:
        fails()
    assert find_user_error(raised.value) is None

    class Mode:
        def __init__(self):
            try:
                {"a": 1}["x"]
            except KeyError:
                raise ValueError("mode is a or b")  # noqa: B904

    with (
        pytest.raises(ConfigError, match=r"Mode cannot be built from its options \(ValueError: mode is a or b\)"),
        blaming_options(),
    ):
        Mode()
