"""What losses remember of training images: rows, checkpoints, resuming, averages, other data."""

from copy import deepcopy

import pytest
import torch

from mlcv.cli import main
from mlcv.errors import ConfigError
from mlcv.losses.memory import Memory, expected_positives
from mlcv.methods import Classifier

LABELS = torch.tensor([[1.0, 0, -1], [0, 0, 1], [1, 1, 0], [-1, -1, 0]])
RUN = [
    "--data=DigitScenesDataModule", "--data.num_train=96", "--data.num_val=16", "--data.num_test=16",
    "--data.image_size=32", "--data.batch_size=16", "--data.num_workers=0", "--model=Classifier",
    "--model.backbone=test_resnet", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false", "--model.loss=ELRLoss", "--model.loss.lam=0.5",
    "--model.optim.horizon_epochs=3", "--trainer.deterministic=true",
]  # fmt: skip


@pytest.fixture(params=["device", "cpu"])
def memory(request):
    memory = Memory(request.param, t=torch.float16, visits=(torch.uint8, ()), flag=torch.bool)
    memory.begin(LABELS)
    return memory


def test_rows_are_read_as_they_were_written(memory, rng):
    like, kept = torch.zeros(0), torch.zeros(4, 3)
    for _ in range(20):
        index = torch.randperm(4, generator=rng)[: int(torch.randint(0, 5, (), generator=rng))]
        values = torch.rand(len(index), 3, generator=rng)
        memory.write("t", index, values)
        kept[index] = values.half().float()
        asked = torch.randint(0, 4, (6,), generator=rng)
        assert torch.equal(memory.read("t", asked, like), kept[asked])
    assert torch.equal(memory["t"].float(), kept)
    assert not memory["flag"].any()
    assert memory["visits"].shape == (4,)


def test_an_image_that_could_not_be_read_is_no_other(memory):
    memory.write("visits", torch.tensor([-1, 2]), torch.tensor([7, 3]))
    assert memory["visits"].tolist() == [0, 0, 3, 0]


def test_what_a_checkpoint_holds_comes_back(memory):
    memory.write("t", torch.tensor([1, 3]), torch.rand(2, 3))
    other = Memory(t=torch.float16, visits=(torch.uint8, ()), flag=torch.bool)
    other.begin(LABELS)
    other.load(memory.state())
    assert torch.equal(other["t"], memory["t"])


@pytest.mark.parametrize("labels", [LABELS[:3], 1 - LABELS, LABELS[:, :2]], ids=["fewer", "others", "other classes"])
def test_memories_of_other_labels_are_refused(memory, labels):
    other = Memory(t=torch.float16, visits=(torch.uint8, ()), flag=torch.bool)
    other.begin(labels)
    with pytest.raises(ConfigError, match=r"these are others.*--start_from"):
        other.load(memory.state())


def test_memories_of_another_loss_are_refused(memory):
    other = Memory(z=torch.float32)
    other.begin(LABELS)
    with pytest.raises(ConfigError, match="has no z"):
        other.load(memory.state())


def test_without_labels_it_says_so():
    with pytest.raises(ConfigError, match="has not seen their labels"):
        Memory(t=torch.float16).read("t", torch.tensor([0]), torch.zeros(0))
    with pytest.raises(ConfigError, match="device or cpu"):
        Memory("disk")


def test_a_copy_of_a_method_shares_the_memory(memory):
    assert deepcopy({"loss": memory})["loss"] is memory


def test_positives_of_an_image():
    assert expected_positives(LABELS) == pytest.approx(2 / 3 + 1 / 3 + 1 / 3)
    only = torch.where(LABELS == 1, 1.0, -1.0)
    assert expected_positives(only) == pytest.approx(1.0)


def memory_of(path):
    return torch.load(path, weights_only=True)["memory"]


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]) if isinstance(one[name], torch.Tensor) else one[name] == other[name]


@pytest.mark.parametrize("more", [[], ["--trainer.callbacks+=EMA", "--trainer.callbacks.decay=0.5"]])
def test_a_resumed_training_remembers_what_a_straight_one_would(tmp_path, more, capsys):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert main(["fit", *RUN, *more, "--trainer.max_epochs=3", f"--run_dir={straight}"]) == 0
    assert main(["fit", *RUN, *more, "--trainer.max_epochs=2", f"--run_dir={broken}"]) == 0
    last = broken / "checkpoints" / "last.ckpt"
    assert main(["fit", f"--ckpt_path={last}", "--trainer.max_epochs=3"]) == 0
    expected = straight / "checkpoints" / "last.ckpt"
    same(memory_of(expected), memory_of(last))
    assert memory_of(last)["visits"][:-1].tolist() == [3] * 96
    states = [torch.load(path, weights_only=True)["state_dict"] for path in (expected, last)]
    assert not [name for name in states[0] if name.startswith("loss.")]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value)
    assert main(["fit", f"--ckpt_path={last}", "--trainer.max_epochs=4", "--data.protocol.flip_positives=0.1"]) == 2
    assert "these are others, or their labels are" in capsys.readouterr().err


def test_a_checkpoint_serves_without_its_training_images(tmp_path):
    assert main(["fit", *RUN, "--trainer.max_epochs=1", f"--run_dir={tmp_path}"]) == 0
    last = tmp_path / "checkpoints" / "last.ckpt"
    method = Classifier.load_from_checkpoint(last)
    assert method.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert main(["test", f"--ckpt_path={last}", f"--run_dir={tmp_path / 'test'}", "--data.num_train=48"]) == 0
    begun = ["--start_from", str(last), "--data.num_train=64", f"--run_dir={tmp_path / 'other'}"]
    assert main(["fit", *RUN, *begun, "--trainer.max_epochs=1"]) == 0
