"""The options of commands that have parsers of their own; help needs nothing else, so it is there at once."""

import argparse
from collections.abc import Callable
from pathlib import Path

from mlcv.trust import TRUST_HELP

REPORT_TITLE = "Multi-label classification report"
FORMATS = ["onnx", "pt2"]
"""Of an export."""


def whole_number(least: int) -> Callable[[str], int]:
    """For an option of argparse: a number from `least` on."""

    def read(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"a whole number from {least} on is needed, got {text!r}")
        return int(text)

    return read


def add_truth_options(parser: argparse.ArgumentParser) -> None:
    """What every command asks that reads a truth."""
    parser.add_argument("--truth", type=Path, help="CSV of labels (default: in the first predictions)")
    parser.add_argument("--classes", nargs="+", help="names, or `tasks` (CheXpert's five); else all common columns")
    parser.add_argument("--id", metavar="COLUMN", help="header of the column that names the rows, if unusual")
    parser.add_argument(
        "--group", metavar="COLUMN", help="whose rows are resampled together, such as patient (default: group, if any)"
    )
    parser.add_argument("--blank", choices=["unknown", "negative"], default="unknown", help="what blank cells mean")
    for name, text in (("positive", "1, yes, true, ..."), ("negative", "0, no, false, ..."), ("uncertain", "-1")):
        parser.add_argument(f"--{name}", nargs="+", metavar="CELL", help=f"cells of the truth that mean it ({text})")
    parser.add_argument(
        "--fractions",
        choices=["raise", "majority", "unknown"],
        default="raise",
        help="what probabilities (0.8) and counts of annotators (4/5) in the truth mean; refused by default",
    )


def _init() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv init",
        description="Looks at a table of images and labels, says what it understands, and writes a config that trains "
        "on it. The config is yours to change.",
    )
    parser.add_argument("table", type=Path, help="table, a row an image: its path, its labels, its split if it has")
    help_ = "the config (default: the table's name, .yaml)"
    parser.add_argument("--out", "--output", type=Path, metavar="FILE", dest="output", help=help_)
    parser.add_argument("--image_root", type=Path, metavar="FOLDER", help="that the paths start from (default: found)")
    parser.add_argument("--draw_splits", action="store_true", help="whatever a column of the table says")
    return parser


def _configs() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv configs",
        description="Lists the configs that come with mlcv, each with its data, method and what it has reached "
        "here; or copies one, as a file that needs no other.",
        usage="mlcv configs [list | copy NAME [FILE]]",
    )
    parser.add_argument("verb", nargs="?", choices=["list", "copy"], default="list", help="default: list")
    parser.add_argument("names", nargs="*", metavar="NAME [FILE]", help="of the config, and of its copy")
    return parser


def _self_train() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv self_train",
        description="Trains a model that ignores uncertain labels, and a second one on its probabilities where labels "
        "are uncertain. What is finished is not repeated, and a stage that was stopped is resumed.",
        epilog="All other options are those of `mlcv fit`, for both models.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="an experiment; what is uncertain is decided here")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/self-trained"), help="of both runs (default: %(default)s)"
    )
    return parser


def _evaluate() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv evaluate",
        description="AUROC and AUPRC of files of predictions, with confidence intervals by bootstrap over groups.",
    )
    parser.add_argument("predictions", type=Path, nargs="+", help="CSV: a row an image or study, a column a class")
    add_truth_options(parser)
    parser.add_argument(
        "--study", choices=["max", "mean"], help="judge whole studies: the largest or mean of their images"
    )
    parser.add_argument("--combine", choices=["none", "mean", "rank"], default="none", help="add all models in one")
    parser.add_argument(
        "--by", nargs="+", default=[], metavar="COLUMN", help="also by a column of the truth: Sex Age ..."
    )
    parser.add_argument("--readers", type=Path, nargs="+", default=[], help="CSV of decisions (0, 1) of radiologists")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[], help="operating points of the last model")
    parser.add_argument("--resamples", type=whole_number(1), default=1000, help="of the bootstrap (default: 1000)")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="of the bootstrap")
    parser.add_argument(
        "--out", type=Path, default=Path("evaluation"), help="folder of the results (default: evaluation)"
    )
    parser.add_argument("--no_pictures", action="store_true", help="draw no curves")
    return parser


def _calibrate() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv calibrate",
        description="Fits probabilities, thresholds and conformal sets to validation predictions; predict uses them.",
    )
    parser.add_argument("predictions", type=Path, help="val_predictions.csv of `mlcv validate`, or any CSV of them")
    add_truth_options(parser)
    parser.add_argument("--method", choices=["temperature", "platt", "none"], default="platt", help="of the scaling")
    parser.add_argument("--goal", choices=["f1", "precision", "recall"], default="f1", help="of the thresholds")
    parser.add_argument("--level", type=float, default=0.9, help="of precision or recall (default: 0.9)")
    parser.add_argument("--risk", type=float, default=0.1, help="part of the labels that sets may miss (default: 0.1)")
    parser.add_argument("--epsilon", type=float, default=0.1, help="how often the true label set may be left out (0.1)")
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="of the halves, and of the parts that judge scalings"
    )
    parser.add_argument("--out", type=Path, help="the file (default: calibration.json beside the predictions)")
    return parser


def _ensemble() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv ensemble",
        description="One file of predictions from several: CSV files, or checkpoints, which predict their test split.",
        epilog=TRUST_HELP,
    )
    parser.add_argument("models", type=Path, nargs="+", help="CSV files of predictions, or checkpoints of `mlcv fit`")
    parser.add_argument("--how", choices=["mean", "rank"], default="mean", help="rank where scales differ")
    parser.add_argument("--out", type=Path, default=Path("ensemble.csv"), help="the file (default: ensemble.csv)")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="of `mlcv predict`, for checkpoints")
    return parser


def _report() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv report",
        description="One HTML file on one or more runs; the first one is shown in detail.",
        epilog=TRUST_HELP,
    )
    parser.add_argument(
        "predictions", type=Path, nargs="+", help="folders of runs (test_predictions.csv in them), or any CSV files"
    )
    add_truth_options(parser)
    parser.add_argument("--ckpt_path", type=Path, help="of the first run: for its images, and heat maps if it has any")
    parser.add_argument("--examples", type=int, default=3, help="images of each kind and class (default: 3)")
    parser.add_argument("--resamples", type=whole_number(1), default=1000, help="of the bootstrap (default: 1000)")
    parser.add_argument("--title", default=REPORT_TITLE)
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the file (default: report.html)")
    return parser


def _bench() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv bench",
        description="Trains and predicts for some steps, writing only times. Other options are those of mlcv fit.",
        epilog="example: mlcv bench --config configs/digits/bce.yaml --precisions 32-true bf16-mixed --out now.json",
    )
    parser.add_argument("--steps", type=int, default=50, help="measured (default: 50)")
    parser.add_argument("--warmup", type=int, default=10, help="steps before them (default: 10)")
    parser.add_argument("--precisions", nargs="+", default=["32-true"], help="Lightning's names (default: 32-true)")
    parser.add_argument("--modes", nargs="+", choices=["eager", "compiled"], default=["eager"], help="default: eager")
    parser.add_argument("--out", type=Path, help="JSON with numbers, hardware and versions")
    parser.add_argument("--compare", type=Path, help="JSON of an earlier --out: adds ratios")
    return parser


def _export() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv export",
        description="Writes a checkpoint as ONNX and torch.export: uint8 pixels in, probabilities and labels out.",
        epilog=TRUST_HELP,
    )
    parser.add_argument("--ckpt_path", type=Path, required=True, help="of `mlcv fit`")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS, help="default: both")
    parser.add_argument("--out", type=Path, help="folder of model.onnx and model.pt2 (default: the run's)")
    parser.add_argument(
        "--calibration", help="file of `mlcv calibrate`, or none (default: the run's calibration.json, if any)"
    )
    parser.add_argument(
        "--images", type=Path, help="real images to compare on (default: the run's test images, if any)"
    )
    return parser


def _preview() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv preview",
        description="Draws a training batch as the network sees it: augmented, with its labels. Nothing is trained.",
        epilog="All other options are those of mlcv fit. example: mlcv preview --config configs/digits/bce.yaml",
        allow_abbrev=False,
    )
    default = Path("batch.png")
    parser.add_argument("--out", "--output", type=Path, dest="output", default=default, help="default: %(default)s")
    parser.add_argument("--images", type=whole_number(1), default=16, help="at most the batch's (default: 16)")
    return parser


def _data() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv data",
        description="Looks at all labels and images of a config, and writes a page on what they are and what is wrong "
        "with them: unknown labels, copies, leakage, drift, what a label follows. Nothing is trained.",
        epilog="All other options are those of mlcv fit. example: mlcv data --config voc/lite0 --data.root data/voc",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, default=Path("sheet.html"), help="the page (default: %(default)s)")
    parser.add_argument(
        "--fail-on", "--fail_on", default="", metavar="KINDS", help="exit with 1 on any of leakage, conflicts, "
        "duplicates, unreadable, unjudged, drift, shortcuts; divided by commas",
    )  # fmt: skip
    parser.add_argument("--by", metavar="COLUMN", help="compare its values, as splits are (default: source, if any)")
    parser.add_argument("--about", default="", metavar="TEXT", help="source and licence, for the page")
    parser.add_argument("--labels-only", "--labels_only", dest="images", action="store_false", help="open no image")
    parser.add_argument("--examples", type=whole_number(0), default=6, help="images of each class (default: 6)")
    parser.add_argument("--workers", type=whole_number(1), help="images at the same time (default: one a core)")
    return parser


def _features() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv features",
        description="Stores what a config's backbone makes of its images, once; training then needs neither of them, "
        "as long as the backbone is frozen. What is done is not repeated.",
        epilog="All other options are those of mlcv fit. example: mlcv features --config voc/lite0 --out features, "
        "then mlcv fit --config voc/lite0 --data.features features",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("features"), help="folder of the arrays (default: %(default)s)"
    )
    parser.add_argument(
        "--views", type=whole_number(0), default=0, help="augmented views of each training image (default: none)"
    )
    parser.add_argument("--patches", action="store_true", help="store feature maps, too, for heads that read patches")
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16", help="default: %(default)s")
    return parser


def _study() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv study",
        description="Which method for these labels: a grid of methods, label conditions and seeds, each run an mlcv "
        "fit. Settings are chosen on validation data, the test split is scored once. What is done is not repeated.",
        epilog="All other options are those of mlcv fit, for all runs. example: mlcv study --preset losses --config "
        "my.yaml --data.features features",
        allow_abbrev=False,
    )
    parser.add_argument("file", nargs="?", help="YAML of a study, or the name of one that comes with mlcv")
    parser.add_argument(
        "--preset", choices=["losses", "fractions", "budget"],
        help="in place of a file, with --config: losses on your labels as they are; a curve over known fractions; "
        "quantity against quality at one cost",
    )  # fmt: skip
    parser.add_argument("--jobs", type=whole_number(1), help="runs at a time (default: one a core; with a GPU one)")
    parser.add_argument("--seeds", type=whole_number(1), help="how many (default: the study's, or 3)")
    parser.add_argument("--methods", metavar="A,B", help="some of the study's, by name")
    parser.add_argument("--out", type=Path, help="folder of the results (default: runs/study-<name>)")
    return parser


def _prepare() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv prepare",
        description="Makes the images of a config small once, where each epoch would do it again: for large "
        "photographs and files of 16 bits. Labels and tables stay where they are; what is done is not repeated.",
        epilog="All other options are those of mlcv fit. example: mlcv prepare --config my.yaml --out /fast/my, then "
        "mlcv fit --config my.yaml --data.prepared /fast/my",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("prepared"), help="folder of the images (default: %(default)s)"
    )
    parser.add_argument(
        "--side", type=whole_number(1), help="shorter side in pixels (default: what image_size and crops need)"
    )
    parser.add_argument(
        "--format", dest="form", choices=["auto", "jpeg", "png"], default="auto",
        help="auto: JPEG (quality 95) for JPEG, PNG without loss for all else (default: auto)",
    )  # fmt: skip
    parser.add_argument("--workers", type=whole_number(1), help="images at the same time (default: one a core)")
    return parser


def _audit() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv audit",
        description="Finds wrong labels: judges each known one by models that did not see it, and writes entries.csv, "
        "suggestions.csv, classes.csv and a page on which to decide.",
        epilog="All other options are those of `mlcv fit`, of which --config is needed unless files of predictions are "
        "given.",
        allow_abbrev=False,
    )
    parser.add_argument("predictions", type=Path, nargs="*", help="CSV of unseen images, with labels; else --config")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: runs/audit-CONFIG; that of predictions")
    parser.add_argument("--folds", type=whole_number(2), default=5, help="of the training images (default: 5)")
    parser.add_argument("--full", action="store_true", help="train whole networks, not heads on stored features")
    help_ = "that are judged (default: train)"
    parser.add_argument("--splits", nargs="+", choices=["train", "val", "test"], default=["train"], help=help_)
    parser.add_argument(
        "--order", choices=["errors", "mean_ap", "review"], default="errors", help="of the page: most errors a look "
        "(default), what helps a mean over classes, or a mix that tells how far probabilities can be believed",
    )  # fmt: skip
    parser.add_argument("--show", type=whole_number(0), default=200, help="entries on the page (default: 200)")
    parser.add_argument("--decisions", type=Path, help="corrections.csv of earlier decisions, to mend probabilities by")
    parser.add_argument("--budget", type=whole_number(0), default=0, help="what to label next: so many, in next.csv")
    parser.add_argument("--unit", choices=["images", "entries"], default="images", help="of the budget")
    parser.add_argument(
        "--sure", type=float, help="least probability of suggestions (0.9), or of labels by votes (0.5)"
    )
    parser.add_argument("--image_root", type=Path, metavar="FOLDER", help="that images in predictions start from")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="of draws")
    add_truth_options(parser)
    votes = parser.add_argument_group("several annotators")
    help_ = (
        "answers of several people: a row an answer, or a row an image and annotator, or a column an annotator; or a "
    )
    votes.add_argument("--votes", type=Path, nargs="+", metavar="FILE", help=help_ + "file each, a row an image")
    help_ = "of a model that did not learn from these answers, for raykar and crowdlab"
    votes.add_argument("--predictions", dest="prior", type=Path, nargs="+", default=[], metavar="FILE", help=help_)
    help_ = "default: raykar where predictions are given, else dawid_skene"
    votes.add_argument("--method", choices=["raykar", "dawid_skene", "majority", "crowdlab"], help=help_)
    votes.add_argument("--annotator", metavar="COLUMN", help="header of the column that says who answered, if unusual")
    votes.add_argument("--class_column", metavar="COLUMN", help="likewise, that names the class")
    votes.add_argument("--answer", metavar="COLUMN", help="likewise, of the answer")
    help_ = "how good annotators are: for each class, or once (default: by how many votes there are)"
    votes.add_argument("--rates_of", choices=["auto", "classes", "all"], default="auto", help=help_)
    help_ = "write the probability in place of a label that is less than .99 sure: a soft label"
    votes.add_argument("--soft", action="store_true", help=help_)
    effect = parser.add_argument_group("what corrections were worth")
    help_ = "corrections.csv: trains with and without, and judges by given and corrected test labels"
    effect.add_argument("--effect", type=Path, metavar="FILE", help=help_)
    effect.add_argument("--study", metavar="FILE", help="whose methods are several models, in place of --config")
    effect.add_argument("--seeds", type=whole_number(1), default=3, help="of each training (default: 3)")
    effect.add_argument("--jobs", type=whole_number(1), help="trainings at a time (default: one a core)")
    return parser


def _merge() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlcv merge",
        description="Joins data sets in one table of one label space: a class that a data set does not judge is "
        "unknown for its images.",
    )
    parser.add_argument("file", type=Path, help="YAML: sources with their classes, hierarchy; see docs/merge.md")
    parser.add_argument(
        "--out", type=Path, default=Path("merged.csv"), help="the table, .csv or .parquet (default: merged.csv)"
    )
    return parser


PARSERS = {
    "init": _init, "configs": _configs, "self_train": _self_train, "evaluate": _evaluate, "calibrate": _calibrate,
    "ensemble": _ensemble, "report": _report, "bench": _bench, "export": _export,
    "preview": _preview, "prepare": _prepare, "features": _features, "study": _study,
    "audit": _audit, "merge": _merge, "data": _data,
}  # fmt: skip


def parser_of(command: str) -> argparse.ArgumentParser:
    """Of one of the commands that have one."""
    return PARSERS[command]()
