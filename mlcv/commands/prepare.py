"""`mlcv prepare`: makes large images small once, where each epoch would do so again."""

import json
import logging
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import cv2

from mlcv.commands.arguments import parser_of
from mlcv.commands.preview import data_of
from mlcv.data.at_once import mapped
from mlcv.data.base import MultiLabelDataModule, usable_cores
from mlcv.data.prepared import MANIFEST, Prepared, small_image
from mlcv.errors import ConfigError, DataError, Stopped
from mlcv.files import whole_file, write_text
from mlcv.terminal import console

logger = logging.getLogger(__name__)

Form = Literal["auto", "jpeg", "png"]


@dataclass(frozen=True)
class Outcome:
    """What has become of the images.

    Args:
        folder: for `data.prepared`.
        side: their shorter side in pixels, at most.
        made: how many were made smaller, or of 8 bits.
        same: how many were small enough, and are linked as they are.
        kept: how many an earlier call had left there.
        unreadable: paths of the others, and why.
    """

    folder: Path
    side: int
    made: int
    same: int
    kept: int
    unreadable: dict[str, DataError]

    def __str__(self) -> str:
        counts = {
            "made smaller": self.made, "small enough": self.same, "there already": self.kept,
            "unreadable": len(self.unreadable),
        }  # fmt: skip
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        return f"images of {self.side} pixels: {said}\nuse them: --data.prepared {self.folder}"


def prepare(
    options: Sequence[str],
    out: str | Path = "prepared",
    *,
    side: int | None = None,
    form: Form = "auto",
    workers: int | None = None,
) -> Outcome:
    """Makes the images of all splits of a config small, once; labels and tables stay where they are.

    What is there already is kept, unless its source is newer or older than it was; so a call that was stopped goes on.

    Args:
        options: as of `mlcv fit`, such as `["--config", "configs/coco/bce.yaml"]`.
        out: folder, for `data.prepared`.
        side: shorter side in pixels; by default the least of which training at the config's image_size and crops loses
            nothing. Smaller images stay as they are.
        form: `auto` writes JPEG (quality 95) for JPEG, and PNG without loss for all else; or `jpeg` or `png`.
        workers: threads, which decode at the same time; one a core if None.

    Returns:
        what was done.

    Raises:
        UserError: for a config or data that cannot be read, a folder of other settings, or, if `data.on_error` is
            raise, unreadable images, when all others are prepared.
    """
    data = data_of(options)
    outcome = prepare_data(data, out, side=side, form=form, workers=workers)
    for error in outcome.unreadable.values():
        logger.warning("%s", error)
    if outcome.unreadable and data.on_error == "raise":
        count = len(outcome.unreadable)
        raise DataError(
            f"{count} image{'s' if count > 1 else ''} could not be read, all others are in {out}; the first: "
            f"{next(iter(outcome.unreadable.values()))}"
        )
    return outcome


def main(arguments: list[str]) -> None:
    """Prepares, and says how to use it.

    Raises:
        UserError: as `prepare`.
    """
    options, others = parser_of("prepare").parse_known_args(arguments)
    outcome = prepare(others, options.out, side=options.side, form=options.form, workers=options.workers)
    console().print(str(outcome), soft_wrap=True)


def prepare_data(
    data: MultiLabelDataModule, out: str | Path, *, side: int | None, form: Form, workers: int | None
) -> Outcome:
    """As `prepare`, of any data; unreadable images are told by what is returned alone."""
    if form not in get_args(Form):
        raise ConfigError(f"form is one of {', '.join(get_args(Form))}; got {form!r}")
    folder, files, side = Path(out), data.image_files(), side or data.min_side
    before = Prepared.open(folder)
    if before is not None and (before.side, before.form) != (side, form):
        raise ConfigError(
            f"--out: {folder} has images of --side {before.side} --format {before.form}, and now it is --side {side} "
            f"--format {form}: say the former, or choose another folder"
        )
    prepared = Prepared(str(folder.absolute()), side, form, {} if before is None else before.unreadable)
    _write_manifest(folder, prepared)
    target = replace(prepared, unreadable={})  # what could not be read may be mended
    done: dict[str, int] = {"made": 0, "same": 0, "kept": 0}
    unreadable: dict[str, DataError] = {}

    def one(path: str) -> str | DataError:
        try:
            return _prepare_one(path, Path(target.place(path)), side, form, data)
        except DataError as error:
            return error

    cv2.setNumThreads(1)  # images are what is done at the same time
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        try:
            for path, result in zip(files, mapped(pool, one, files, "preparing images"), strict=True):
                if isinstance(result, DataError):
                    unreadable[path] = result
                else:
                    done[result] += 1
        except KeyboardInterrupt as stop:
            pool.shutdown(cancel_futures=True)
            number = getattr(stop, "signum", signal.SIGINT)
            raise Stopped(number, "What is prepared is kept: give the same command again to go on") from None
    seen = {os.path.abspath(path) for path in files}  # noqa: PTH100  # strings, as in `Prepared.place`
    others = {path: why for path, why in prepared.unreadable.items() if path not in seen}
    said = {os.path.abspath(path): str(error) for path, error in unreadable.items()}  # noqa: PTH100
    _write_manifest(folder, replace(prepared, unreadable={**others, **said}))
    return Outcome(folder, side, **done, unreadable=unreadable)


def _prepare_one(path: str, target: Path, side: int, form: Form, data: MultiLabelDataModule) -> str:
    """What was done: `made`, `same` or `kept`. The file has the time of its source, by which it is known again."""
    with suppress(OSError):
        if target.stat().st_mtime_ns == Path(path).stat().st_mtime_ns:
            return "kept"
    small = small_image(path, side, form, max_megapixels=data.max_megapixels)  # colours stay, for other data sets
    if small is None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        with suppress(OSError):
            os.link(os.path.realpath(path), target)
            return "same"
        small = Path(path).read_bytes()  # on another disk
    time = Path(path).stat()
    with whole_file(target, "wb") as file:
        file.write(small)
    os.utime(target, ns=(time.st_atime_ns, time.st_mtime_ns))
    return "made"


def _write_manifest(folder: Path, prepared: Prepared) -> None:
    write_text(folder / MANIFEST, json.dumps(prepared.manifest(), indent=1))
