"""`mlcv ensemble`: one file of predictions from several models."""

import io
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mlcv.commands.arguments import parser_of
from mlcv.commands.predict import predict
from mlcv.errors import check_choice, listed
from mlcv.files import write_table
from mlcv.posthoc.columns import common_classes
from mlcv.posthoc.predictions import apart, combine, read_predictions
from mlcv.tables import read_once
from mlcv.terminal import console


@read_once()
def ensemble(
    models: str | Path | Sequence[str | Path],
    *,
    how: Literal["mean", "rank"] = "mean",
    out: str | Path = "ensemble.csv",
    options: Sequence[str] = (),
) -> Path:
    """Combines predictions of the same images, as CheXpert's paper those of its runs' ten best checkpoints.

    Args:
        models: CSV files of predictions, and checkpoints of `mlcv fit`, which predict their test split first.
        how: `mean` of the scores, or of their `rank`s where scales differ.
        out: the file; an earlier one is kept under another name.
        options: more of `mlcv predict`, for checkpoints.

    Returns:
        `out`.

    Raises:
        UserError: for files that cannot be read, or of other images or classes than the first.
    """
    check_choice("how", how, ("mean", "rank"))
    with tempfile.TemporaryDirectory() as folder:
        given = listed(models)
        paths = [_predicted(path, Path(folder, str(n)), options) for n, path in enumerate(given)]
        names = common_classes(paths, called=given)
        called = apart([path.stem for path in given], given)
        together = combine(
            [replace(read_predictions(path, names), name=name) for path, name in zip(paths, called, strict=True)], how
        )
    rows = ([name, *scores] for name, scores in zip(together.ids, together.scores.tolist(), strict=True))
    write_table(Path(out), ["image", *names], rows, keep=True)
    return Path(out)


def main(arguments: list[str]) -> None:
    """Reads or predicts, combines and writes.

    Raises:
        UserError: as `ensemble`.
    """
    options = parser_of("ensemble").parse_args(arguments)
    out = ensemble(options.models, how=options.how, out=options.out, options=options.options)
    console().print(f"{options.how} of {len(options.models)} models: {out}", soft_wrap=True)


def _predicted(path: Path, folder: Path, options: Sequence[str]) -> Path:
    """A file of predictions as it is; of a checkpoint, made in a folder."""
    if path.suffix != ".ckpt":
        return path
    folder.mkdir()
    console().print(f"predicting with {path}", soft_wrap=True)
    with redirect_stdout(io.StringIO()):  # where it says which file it has written, which will be gone
        return predict(path, out=folder / "predictions.csv", options=[f"--run_dir={folder}", *options])
