import pytest
import torch
from lightning.pytorch import Trainer

from mlcv import Classifier, DigitScenesDataModule
from mlcv.callbacks import StopOnNonFiniteLoss
from mlcv.errors import UserError


class Failing(Classifier):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.seen = [*getattr(self, "seen", []), batch["index"].tolist()]
        return loss * (float("nan") if self.trainer.global_step == self.fail_at else 1.0)


@pytest.mark.parametrize("fail_at", [0, 2, 6])  # 6 is the last step before validation
def test_training_stops_with_the_samples_of_the_batch(fail_at):
    module = Failing("test_resnet", 10)
    module.fail_at = fail_at
    data = DigitScenesDataModule(56, 8, 8, batch_size=8, image_size=32)
    trainer = Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[StopOnNonFiniteLoss()], accelerator="cpu",
    )  # fmt: skip
    with pytest.raises(UserError, match="the loss was nan at step.*Lower model.optim.lr") as caught:
        trainer.fit(module, data)
    assert str(module.seen[fail_at]) in str(caught.value)
    assert len(module.seen) <= fail_at + 2


def test_finite_losses_pass():
    check = StopOnNonFiniteLoss()
    check._last = (torch.tensor(1.0), torch.arange(2), 3)
    check._check(Trainer(logger=False, enable_checkpointing=False))
    assert check._last is None


def test_weights_that_became_no_numbers_are_told_in_validation():
    module = Classifier("test_resnet", 10)
    torch.nn.init.constant_(next(module.head.parameters()), torch.nan)
    data = DigitScenesDataModule(8, 8, 8, batch_size=8, image_size=32)
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    with pytest.raises(UserError, match="NaN for 8 of the 8 images of the val split.*training has diverged"):
        trainer.validate(module, data, verbose=False)
