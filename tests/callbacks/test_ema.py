import copy

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from mlcv.callbacks import EMA
from mlcv.errors import ConfigError


class Line(LightningModule):
    """One weight, one buffer that counts steps, SGD."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0]))
        self.register_buffer("steps", torch.tensor(0.0))
        self.history, self.validated, self.started = [], [], torch.tensor([1.0])

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return (self.weight * batch).mean()

    def on_train_batch_end(self, *args):
        self.history.append(self.weight.detach().clone())

    def validation_step(self, batch, batch_idx):
        self.validated.append(self.weight.detach().clone())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.arange(1.0, 7.0))

    def val_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(1))


def fit(ema, epochs=2, module=None, **options):
    module = module or Line()
    trainer = Trainer(
        max_epochs=epochs, callbacks=[ema], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(module, **options)
    return module, trainer


def averages(history, decay, warmup, start=0):
    average, found = None, []
    for n, weight in enumerate(history):
        if n >= start:
            k = n - start
            d = min(decay, (1 + k) / (10 + k)) if warmup else decay
            average = weight.clone() if average is None else d * average + (1 - d) * weight
        found.append(average)
    return found


@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize("start", [0, 4])
def test_the_average_is_the_recursion_and_validation_and_the_end_use_it(warmup, start):
    module, _ = fit(EMA(0.8, start, warmup))
    expected = averages(module.history, 0.8, warmup, start)
    torch.testing.assert_close(module.validated[0], expected[5])
    torch.testing.assert_close(module.weight.detach(), expected[11])


def test_a_run_shorter_than_the_start_keeps_its_trained_weights():
    module, _ = fit(EMA(start_step=1000))
    assert torch.equal(module.weight.detach(), module.history[-1])
    assert torch.equal(module.validated[0], module.history[5])
    assert not torch.equal(module.weight.detach(), module.started)


def test_buffers_are_the_trained_ones():
    module, _ = fit(EMA(0.9))
    assert module.steps == 12


@pytest.mark.parametrize("start", [0, 8])
def test_resuming_equals_a_straight_run(tmp_path, start):
    straight, _ = fit(EMA(0.8, start), epochs=4)
    fit(EMA(0.8, start), epochs=2, module=Saving(tmp_path / "two.ckpt"))
    resumed, _ = fit(EMA(0.8, start), epochs=4, ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    torch.testing.assert_close(resumed.weight, straight.weight)
    assert resumed.steps == straight.steps


class Saving(Line):
    """Saves before the average replaces the weights at the end of training."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_train_epoch_end(self):
        self.trainer.save_checkpoint(self.path)


def test_a_checkpoint_holds_the_average_as_its_weights(tmp_path):
    module, _ = fit(EMA(0.8, warmup=False), epochs=1, module=Saving(tmp_path / "a.ckpt"))
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    torch.testing.assert_close(saved["state_dict"]["weight"], averages(module.history, 0.8, False)[-1])
    torch.testing.assert_close(saved["current_model_state"]["weight"], module.history[-1])


def test_an_impossible_decay_is_refused():
    with pytest.raises(ConfigError, match="decay"):
        EMA(1.0)
    assert copy.copy(EMA(0.5)).decay == 0.5
