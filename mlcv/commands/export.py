"""`mlcv export`: a checkpoint as one file that runs without this project, and is refused if it says anything else."""

import hashlib
import io
import json
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlcv import __version__
from mlcv.commands.arguments import parser_of
from mlcv.data.base import MultiLabelDataModule
from mlcv.data.image_files import find_images
from mlcv.data.images import read_image
from mlcv.data.samples import Collate
from mlcv.data.transforms import evaluation_transform
from mlcv.errors import ConfigError, check_choice
from mlcv.files import whole_file
from mlcv.methods.base import MultiLabelModule
from mlcv.posthoc.calibrated import Calibration
from mlcv.posthoc.calibration import EPS, Scaling
from mlcv.runs import Run
from mlcv.terminal import console

TOLERANCE = 1e-4
"""By how much a probability may differ from the module's."""
METADATA = "mlcv"
"""Key of the ONNX metadata, and with .json name of torch.export's extra file, under which the JSON is."""
_SOME = 16
_MOST_ONNX = 2**31
"""Bytes of a message of protobuf."""


class Deployed(nn.Module):
    """From pixels to decisions: normalisation, network, calibration and thresholds in one graph.

    Args:
        method: in evaluation mode.
        mean: of each channel, for pixels in [0, 1].
        std: likewise.
        calibration: probabilities as they are, and 0.5, if None.

    Shape:
        pixels uint8 (B, S, S, 3), RGB, of the network's size; returns probabilities float32 (B, C) and labels bool
        (B, C).
    """

    mean: Tensor
    std: Tensor
    slope: Tensor
    offset: Tensor
    thresholds: Tensor

    def __init__(
        self,
        method: MultiLabelModule,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        calibration: Calibration | None,
    ) -> None:
        super().__init__()
        self.method, self.is_calibrated = method.requires_grad_(False), calibration is not None
        one = torch.ones(method.num_classes)
        given: tuple[Any, Any, Any] = (one, 0 * one, one / 2)
        if calibration is not None:
            given = calibration.slope, calibration.offset, calibration.thresholds
        named = zip(("mean", "std", "slope", "offset", "thresholds"), (mean, std, *given), strict=True)
        for name, values in named:
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        image = (pixels.float() / 255 - self.mean) / self.std
        return self.decide(self.method(image.permute(0, 3, 1, 2)))

    def decide(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities and labels of the method's logits, in their precision."""
        if not self.is_calibrated:
            probs = self.method.probabilities(logits)
            return probs, probs > self.thresholds
        # A probability near 1 has few digits left to tell its logit by, so the logit itself is taken.
        most = math.log(1 / EPS - 1)
        probs = Scaling(self.slope, self.offset).on(self.method.exact_logits(logits).clamp(-most, most))
        return probs, probs >= self.thresholds


def export(
    checkpoint: str | Path,
    *,
    formats: Sequence[str] = ("onnx", "pt2"),
    out: str | Path | None = None,
    calibration: str | None = None,
    images: str | Path | None = None,
) -> dict[Path, dict[str, tuple[float, int]]]:
    """Writes a checkpoint as files that run without this project, and keeps those that say what it says.

    Args:
        checkpoint: of `mlcv fit`.
        formats: `onnx`, `pt2` (torch.export), or both.
        out: folder of model.onnx and model.pt2; the run's if None.
        calibration: path of a calibration, or `none`; None for the run's own, if it has one.
        images: real images to compare on; if None the run's test images, where they are here.

    Returns:
        of each file, for `random` and for `real` images: by how much its probabilities differ at most from the
        module's, and on how many images.

    Raises:
        UserError: for a checkpoint or calibration that cannot be read, a network that cannot be exported, or a file
            whose outputs are not the module's.
    """
    formats = (formats,) if isinstance(formats, str) else formats
    for name in formats:
        check_choice("formats", name, tuple(_MAKERS))
    _check_libraries(formats)
    run = Run(Path(checkpoint))
    data, method = run.data(), run.method()
    fitted = run.calibration(calibration, method.class_names)
    module = Deployed(method, data.statistics.mean, data.statistics.std, fitted).eval()
    about = _describe(module, data, fitted, run.checkpoint)
    trials = _trials(data, None if images is None else Path(images))
    found = {}
    for kind in formats:
        path = Path(out or run.folder) / f"model.{kind}"
        content, function = _MAKERS[kind](module, trials["random"], about)
        differences = {name: _difference(module, data, function, pixels) for name, pixels in trials.items()}
        _check(path, differences)
        with whole_file(path, "wb") as file:
            file.write(content)
        found[path] = {name: (value, len(trials[name])) for name, value in differences.items()}
    return found


def main(arguments: list[str]) -> None:
    """Exports, runs what it has written, and keeps it if it agrees.

    Raises:
        UserError: as `export`.
    """
    options = parser_of("export").parse_args(arguments)
    found = export(
        options.ckpt_path,
        formats=options.formats,
        out=options.out,
        calibration=options.calibration,
        images=options.images,
    )
    for path, differences in found.items():
        told = ", ".join(f"{value:.1e} on {count} {name} images" for name, (value, count) in differences.items())
        size = f"{path.stat().st_size / 2**20:.1f} MiB"
        console().print(f"{path}: {size}\n  largest difference {told}", soft_wrap=True)


def _check_libraries(formats: Sequence[str]) -> None:
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if "onnx" in formats and absent:
        raise ConfigError(f'ONNX needs {", ".join(absent)}: pip install "mlcv[export]", or give --formats pt2')


def _describe(
    module: Deployed, data: MultiLabelDataModule, calibration: Calibration | None, checkpoint: Path
) -> dict[str, str]:
    facts = {
        "classes": module.method.class_names,
        "thresholds": module.thresholds.tolist(),
        "thresholds_for": calibration.goal if calibration is not None else "0.5",
        "calibrated": module.is_calibrated,
        "image_size": data.image_size,
        "resize": data.augment.resize,
        "interpolation": data.statistics.interpolation,
        "crop_fraction": data.statistics.crop_fraction,
        "grey": data.grey,
        "mean": data.statistics.mean,
        "std": data.statistics.std,
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "mlcv": __version__,
        "torch": torch.__version__,
    }
    return {METADATA: json.dumps(facts)}


def _trials(data: MultiLabelDataModule, images: Path | None) -> dict[str, Tensor]:
    """Pixels to compare on, uint8 (M, S, S, 3): noise, and real images where there are any."""
    size = data.image_size
    generator = torch.Generator().manual_seed(0)
    trials = {"random": torch.randint(256, (_SOME, size, size, 3), dtype=torch.uint8, generator=generator)}
    transform = evaluation_transform(size, data.augment, data.statistics)
    if images is not None:
        found = [read_image(Path(path), transform.min_side) for path, _ in zip(find_images(images), range(_SOME))]  # noqa: B905  # as many as there are
    else:
        try:
            data.setup("test")
        except Exception:  # noqa: BLE001  # whatever a data set says that is not on this machine
            return trials
        test = data.datasets["test"]
        found = [test.load(index) for index in range(min(len(test), _SOME))]
    pixels = [torch.from_numpy(transform(image, (0,)).copy()) for image in found]
    if pixels:
        trials["real"] = torch.stack([image.expand(-1, -1, 3) for image in pixels]).contiguous()
    return trials


def _difference(
    module: Deployed, data: MultiLabelDataModule, run: Callable[[Tensor], tuple[Tensor, Tensor]], pixels: Tensor
) -> float:
    """The largest difference of a probability from that of loader, method and calibration, in batches small and large.

    Raises:
        ConfigError: if a label is not what the thresholds give.
    """
    samples = [{"image": p.numpy(), "target": torch.zeros(0), "index": 0} for p in pixels]
    batch = Collate(data.normalize)(samples)  # type: ignore[arg-type]
    logits = module.method(batch["image"])
    expected = module.decide(logits.double())[0]
    worst = 0.0
    for part, wanted in ((pixels, expected), (pixels[:1], expected[:1])):
        probs, labels = _quietly(partial(run, part))
        worst = max(worst, float((probs - wanted).abs().nan_to_num(nan=1.0).max()))
        clear = (wanted - module.thresholds).abs() > TOLERANCE
        if worst <= TOLERANCE and (labels != (wanted > module.thresholds))[clear].any():
            raise ConfigError("the exported labels are not those that the thresholds give")
    return worst


def _check(path: Path, differences: dict[str, float]) -> None:
    worst = max(differences.values())
    if not worst <= TOLERANCE:
        raise ConfigError(
            f"{path} is not written: its probabilities differ from the module's by up to {worst:.1e}, more than "
            f"{TOLERANCE:g}; please report the network"
        )


# Files are made in memory: on a full disk the libraries' own writers end the process.


def _make_onnx(module: Deployed, example: Tensor, about: dict[str, str]) -> tuple[bytes, Any]:
    import onnx  # noqa: PLC0415  # an extra

    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    if size >= _MOST_ONNX:
        raise ConfigError(
            f"--formats: ONNX holds less than {_MOST_ONNX >> 30} GiB in a file, and this network has "
            f"{size / 2**30:.1f} GiB: give --formats pt2"
        )
    onnxruntime: Any = import_module("onnxruntime")  # its stubs leave out what it exports

    program = _traced(module, example)
    exported = _quietly(
        lambda: torch.onnx.export(
            program, verbose=False, input_names=["pixels"], output_names=["probs", "labels"], dynamo=True
        )
    )
    proto = exported.model_proto
    onnx.helper.set_model_props(proto, about)
    content: bytes = _quietly(proto.SerializeToString)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda pixels: tuple(map(torch.from_numpy, session.run(None, {"pixels": pixels.numpy()})))


def _make_torch_export(module: Deployed, example: Tensor, about: dict[str, str]) -> tuple[bytes, Any]:
    program, file = _traced(module, example), io.BytesIO()
    _quietly(lambda: torch.export.save(program, file, extra_files={f"{METADATA}.json": about[METADATA]}))
    return file.getvalue(), torch.export.load(io.BytesIO(file.getvalue())).module()


def _traced(module: Deployed, example: Tensor) -> torch.export.ExportedProgram:
    # ONNX's exporter, given the module, would fall back to a fixed batch where this complains.
    shapes = ({0: torch.export.Dim("batch")},)
    program: torch.export.ExportedProgram = _quietly(
        lambda: torch.export.export(module, (example[:2],), dynamic_shapes=shapes)
    )
    return program


_MAKERS: dict[str, Any] = {"onnx": _make_onnx, "pt2": _make_torch_export}


def _quietly(export: Callable[[], Any]) -> Any:
    """What an exporter makes of a network, or its first sentence on why it cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return export()
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(f"this network cannot be exported ({type(error).__name__}: {reason})") from error
