"""A training step never makes the host wait for the device.

Where there is no GPU, whatever would fetch a number from one is refused while a step's forward pass, loss, backward
pass and callbacks run: on a GPU each of these stops the host until all that was asked of the GPU is done.
"""

import contextlib

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils._python_dispatch import TorchDispatchMode

import mlcv.losses
from mlcv import Classifier, DigitScenesDataModule
from mlcv.callbacks import EMA, StopOnNonFiniteLoss
from mlcv.losses.base import ElementwiseLoss
from mlcv.methods import PUMLC, PatchCT, UMultiClass
from mlcv.methods.patch_ct import Transport

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal"}
MAKES_OF_NUMBERS = {"lift_fresh"}
"""Like `torch.tensor([3.0], device=logits.device)`: where that is a GPU they are copied there, and the copy waits."""


class RefuseToWait(TorchDispatchMode):
    """Refuses what waits, but for tensors that lie on the host on a machine with a GPU, too."""

    def __init__(self, *on_the_host, also=frozenset()):
        super().__init__()
        self.on_the_host, self.waits = on_the_host, WAITS | also

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        is_mask = name in ("index", "index_put", "index_put_") and any(
            one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        if (name in self.waits or is_mask) and not any(args[0] is one for one in self.on_the_host):
            raise AssertionError(f"{name} waits for the device")
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def no_waiting(*on_the_host, also=frozenset()):
    if not torch.cuda.is_available():
        with RefuseToWait(*on_the_host, also=also):
            yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class Watched(Callback):
    """The last of the callbacks: it opens the watch when a batch has arrived, and another closes it."""

    def __init__(self):
        self.stack, self.steps = contextlib.ExitStack(), 0

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx:  # the first step compiles, allocates and asks once
            self.stack.enter_context(no_waiting())

    def on_before_optimizer_step(self, *_):
        self.stack.close()  # torch's own optimizers fetch their counts, which lie on the host

    def on_before_zero_grad(self, *_):
        self.steps += 1


class WatchedCallback(Callback):
    """Calls another's hook under the watch."""

    def __init__(self, watched):
        self.watched = watched

    def setup(self, *args, **kwargs):
        self.watched.setup(*args, **kwargs)

    def on_train_batch_end(self, *args):
        with no_waiting():
            self.watched.on_train_batch_end(*args)


def data(**options):
    return DigitScenesDataModule(32, 8, 8, batch_size=8, image_size=64, num_workers=0, **options)


def fit(method, *callbacks, **options):
    watched = Watched()
    trainer = Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0, callbacks=[*callbacks, watched],
    )  # fmt: skip
    try:
        trainer.fit(method, data(**options))
    finally:
        watched.stack.close()
    assert watched.steps == 4


LOSSES = [
    name
    for name in mlcv.losses.__all__
    if isinstance(cls := getattr(mlcv.losses, name), type)
    and issubclass(cls, torch.nn.Module)
    and cls is not ElementwiseLoss
    and name not in ("PUMixup", "ThreeWayLoss")
]


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_does_not_wait(name):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loss = getattr(mlcv.losses, name)().to(device)
    logits = torch.randn(6, 5, device=device, requires_grad=True)
    targets = torch.randint(-1, 2, (6, 5), device=device).float()
    remembered = (torch.arange(6, device=device),) if hasattr(loss, "memory") else ()
    for hook, arguments in (("on_labels", (targets.cpu(), "abcde")), ("plan_epochs", (2,)), ("start_epoch", (1,))):
        getattr(loss, hook, lambda *_: None)(*arguments)
    loss(logits, targets, *remembered)
    with no_waiting(also=MAKES_OF_NUMBERS):
        loss(logits, targets, *remembered).backward()


@pytest.mark.parametrize("build", [
    lambda: Classifier("test_resnet", 10), lambda: UMultiClass("test_resnet", 10), lambda: PUMLC("test_resnet", 10),
    # Without the bound a CPU counts the labels, where nobody waits; a GPU's kernels need none.
    lambda: PatchCT("test_vit", 10, image_size=64, transport=Transport(max_labels=10)),
], ids=["Classifier", "UMultiClass", "PUMLC", "PatchCT"])  # fmt: skip
def test_a_step_of_a_method_does_not_wait(build):
    fit(build())


@pytest.mark.parametrize("callback", [StopOnNonFiniteLoss, EMA])
def test_a_callback_does_not_wait(callback):
    watched = WatchedCallback(callback()) if callback is StopOnNonFiniteLoss else WatchedEMA()
    if not torch.cuda.is_available() and callback is StopOnNonFiniteLoss:
        pytest.skip("on a CPU the answer is there; tests/callbacks holds it to the right step")
    fit(Classifier("test_resnet", 10), watched)


class WatchedEMA(EMA):
    def on_train_batch_end(self, *args):
        count = self._average_model.n_averaged
        assert count.device.type == "cpu"
        with no_waiting(count):
            super().on_train_batch_end(*args)


def test_the_watch_sees_what_waits():
    number = torch.randn((), device="cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises((AssertionError, RuntimeError)), no_waiting():
        float(number)
