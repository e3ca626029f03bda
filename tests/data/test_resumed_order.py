"""A resumed training has the images of its next epoch from the first batch on, also those that are fetched ahead."""

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from mlcv import DigitScenesDataModule
from mlcv.callbacks.resuming import Resuming
from mlcv.methods import Classifier


class Watched(Classifier):
    def training_step(self, batch, batch_idx):
        self.seen.append(batch["index"].tolist())
        return super().training_step(batch, batch_idx)


def train(folder, workers, sampling, checkpoint=None):
    data = DigitScenesDataModule(
        num_train=24, num_val=8, num_test=8, batch_size=8, image_size=32, num_workers=workers, sampling=sampling
    )
    method = Watched("test_resnet", data.num_classes)
    method.seen = []
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ModelCheckpoint(folder, "{epoch}", save_top_k=-1), Resuming()],
    )  # fmt: skip
    trainer.fit(method, data, ckpt_path=checkpoint, weights_only=False)
    return method.seen


@pytest.mark.parametrize(("workers", "sampling"), [(0, "uniform"), (1, "uniform"), (0, "class_aware")])
def test_a_resumed_training_has_the_order_of_a_straight_one(tmp_path, workers, sampling):
    straight = train(tmp_path / "straight", workers, sampling)
    resumed = train(tmp_path / "resumed", workers, sampling, tmp_path / "straight" / "epoch=0.ckpt")
    assert resumed == straight[3:]
