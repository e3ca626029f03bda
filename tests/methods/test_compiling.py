"""A method's objective and its forward pass are one graph each, with the eager numbers, also on the command line."""

import inspect

import pytest
import torch

import mlcv.methods
from mlcv.cli import main
from mlcv.methods import LabelProjector, PatchCT, Transport
from mlcv.methods.compiling import compile_steps
from mlcv.models import LoRA
from mlcv.runs import Run
from tests.contracts.test_methods import METHODS

# A tokenizer of strings stands in the passes of CLIPPretraining.
COMPILED = [name for name in METHODS if name != "CLIPPretraining"]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=COMPILED)
def method(request, tiny_clip):
    cls = getattr(mlcv.methods, request.param)
    options = {"backbone": "test_resnet"} if "backbone" in inspect.signature(cls).parameters else {}
    if issubclass(cls, LabelProjector):
        options = {"backbone": f"open_clip:{tiny_clip[0]}", "weights": str(tiny_clip[1]), "lora": LoRA(1, 1)}
    if issubclass(cls, PatchCT):  # without the bound a CPU counts the labels that an image has
        options["transport"] = Transport(max_labels=5)
    return cls(num_classes=5, image_size=64, **options)


@pytest.fixture
def batch(rng):
    targets = torch.randint(-1, 2, (4, 5), generator=rng).float()
    teacher = torch.randn(4, 5, generator=rng)
    return {"image": torch.randn(4, 3, 64, 64, generator=rng), "target": targets, "teacher": teacher}


@pytest.mark.parametrize("training", [True, False])
def test_the_objective_is_one_graph_forwards_and_backwards(method, batch, training):
    method.train(training)
    torch.manual_seed(0)
    loss, parts = method.objective(batch)
    learning = [parameter for parameter in method.parameters() if parameter.requires_grad]
    slopes = torch.autograd.grad(loss, learning, allow_unused=True)
    torch.manual_seed(0)
    compiled = torch.compile(method.objective, backend="aot_eager", fullgraph=True)
    found, found_parts = compiled(batch)
    torch.testing.assert_close((found, found_parts), (loss, parts))
    for ours, theirs in zip(torch.autograd.grad(found, learning, allow_unused=True), slopes, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_the_forward_pass_is_one_graph(method, batch):
    method.eval()
    compiled = torch.compile(method.forward, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch["image"]), method(batch["image"]), atol=1e-4, rtol=1e-3)


def test_compiling_changes_neither_checkpoints_nor_how_it_is_copied(batch):
    method = mlcv.methods.Classifier("test_resnet", 5)
    names = list(method.state_dict())
    compile_steps(method)
    method.objective(batch)[0].backward()
    assert list(method.state_dict()) == names
    assert method(batch["image"]).shape == (4, 5)


def test_the_command_line_compiles_what_it_trains_and_a_resumed_training_again(tmp_path, monkeypatch, capsys):
    calls = []
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **given: calls.append(given) or compile_(call, backend="eager"))
    small = ["--data.num_train=16", "--data.num_val=8", "--data.num_test=8", "--data.batch_size=8"]
    where = [
        "--run_dir",
        str(tmp_path / "run"),
        "--trainer.max_epochs=1",
        "--data.image_size=32",
        "--test_after_fit=false",
    ]
    assert main(["fit", "--config=digits/bce", "--compile=default", "--compile_dynamic=true", *small, *where]) == 0
    assert calls == 2 * [{"mode": "default", "dynamic": True}]  # the forward pass, and the objective with it
    assert "compiling with the first batches, which may take minutes" in capsys.readouterr().err
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert main(["fit", "--ckpt_path", str(last), "--more_epochs=1"]) == 0
    assert len(calls) == 4
    assert main(["validate", "--ckpt_path", str(last)]) == 0
    assert len(calls) == 4  # an evaluation compiles if it is asked to
    assert Run(last).contents["epoch"] == 1
