"""The options that matter, in the order in which one needs them; a parser knows all others."""

import shutil
import textwrap
from collections.abc import Mapping

_WHAT = {
    "--config NAME|FILE": "an experiment of `mlcv configs`, or your own file; later ones add to earlier ones",
    "--data CLASS": "COCODataModule, VOCDataModule, CheXpertDataModule, NIHDataModule, CSVDataModule, ...",
    "--model CLASS": "Classifier, PUMLC, PatchCT, UMultiClass, Distillation, ...",
}
_DATA = {
    "--data.root FOLDER": "of COCO, VOC, CheXpert or NIH, as it is unpacked",
    "--data.path FILE": "your own table (`mlcv init` writes a config for it)",
    "--data.split_column NAME": "its column with train, val and test; drawn without",
    "--data.group_column NAME": "its column of what must not be in two splits, such as the patient",
    "--data.image_size N": "side of what the network sees, in pixels",
    "--data.batch_size N": "images a step, of each device",
    "--data.num_workers N": "processes that read images",
    "--data.protocol.known_fraction F": "hide the other labels, to see what they are worth",
    "--data.protocol.positives_only BOOL": "hide the negative labels",
    "--data.augment.strength F": "of random colour and geometry, 0 to 1",
    "--data.on_error WORD": "raise, or skip unreadable images",
    "--data.prepared FOLDER": "of `mlcv prepare`: images that were made small once",
    "--data.features FOLDER": "of `mlcv features`: a frozen backbone's, in place of images",
    "--data.corrections FILE": "labels that somebody has put right, from the page of `mlcv audit`",
}
_MODEL = {
    "--model.backbone NAME": "any of timm's, or open_clip:NAME",
    "--model.weights WORD|FILE": "pretrained (a download), installed (a package), a file of weights, or null",
    "--model.head CLASS": "LinearHead, CSRAHead, MLDecoderHead, Query2LabelHead, SemanticGraphHead",
    "--model.loss CLASS": "mlcv.losses.BCELoss, AsymmetricLoss, SelectiveLoss, LargeLoss, ROLELoss, TwoWayLoss, ...; "
    "all: --model.loss.help",
    "--model.loss.pos_weight auto": "balance the classes, by their known training labels",
    "--model.prior_bias true": "begin at each class's log-odds, where positives are rare or labels few",
    "--model.freeze [NAMES]": "parts of the network that do not learn; [''] is all of it",
    "--model.optim.lr F": "peak learning rate",
    "--model.optim.backbone_lr_scale F": "factor on the backbone's learning rate",
    "--model.optim.weight_decay F": "of all but norms and biases",
    "--model.optim.name NAME": "any of timm's optimizers",
    "--model.optim.schedule WORD": "onecycle, cosine or constant",
}
_TRAINING = {
    "--trainer.max_epochs N": "epochs",
    "--patience N": "stop after so many validations without a new best",
    "--compile default": "compile network and loss by torch.compile",
    "--trainer.precision WORD": "32-true, 16-mixed or bf16-mixed",
    "--trainer.accelerator WORD": "auto, cpu, gpu",
    "--trainer.devices N": "how many of them",
    "--trainer.accumulate_grad_batches N": "batches a step, where memory is short",
    "--trainer.gradient_clip_val F": "longest gradient",
    "--trainer.check_val_every_n_epoch N": "validate less often",
    "--trainer.fast_dev_run BOOL": "one batch of everything, writing nothing: does it work?",
    "--seed_everything N": "of all that is drawn",
    "--test_after_fit BOOL": "test the best checkpoint when training is done",
    "--logger WORD": "wandb or mlflow, beside the run's own files",
    "--run_dir FOLDER": "of the run; by default runs/<config>/<next number>",
}
_GOING_ON = {
    "--ckpt_path FILE": "last.ckpt of a run: goes on where it stopped, and needs nothing else",
    "--more_epochs N": "beside it: past the planned end, by a schedule of their own",
    "--start_from FILE": "a new training, with the weights of another run's checkpoint",
}
_EVALUATED = {
    "--ckpt_path FILE": "of mlcv fit; it knows its model, data and settings",
    "--config NAME|FILE": "other data or settings than the checkpoint's",
    "--data.root FOLDER": "where the data is now, if it has moved",
    "--data.path FILE": "likewise, of a table",
    "--data.batch_size N": "images a step",
    "--data.num_workers N": "processes that read images",
    "--trainer.precision WORD": "32-true, 16-mixed or bf16-mixed",
    "--trainer.accelerator WORD": "auto, cpu, gpu",
    "--trainer.devices N": "how many of them",
    "--run_dir FOLDER": "where results go; the checkpoint's run by default",
}
_CALIBRATED = {"--calibration FILE": "of mlcv calibrate, or none; by default the run's own"}
_UNTRAINED = {"--untrained BOOL": "no checkpoint: the network as its config starts it (a CLIP's zero-shot result)"}
_PREDICTED = {
    "--ckpt_path FILE": "of mlcv fit; it knows its model and settings",
    "--data.path FILE|FOLDER": "images: a folder, a file, or a table that names them",
    "--split WORD": "in place of --data.path: train, val or test of what it was trained on",
    "--predictions FILE": ".csv, .jsonl, or .npy to learn from; by default predictions.csv in the run's folder",
    **_CALIBRATED,
    "--data.batch_size N": "images a step",
    "--data.num_workers N": "processes that read images",
    "--trainer.precision WORD": "32-true, 16-mixed or bf16-mixed",
    "--trainer.accelerator WORD": "auto, cpu, gpu",
}

SECTIONS: dict[str, dict[str, dict[str, str]]] = {
    "fit": {"what": _WHAT, "data": _DATA, "model": _MODEL, "training": _TRAINING, "going on": _GOING_ON},
    "validate": {"": {**_EVALUATED, **_UNTRAINED}},
    "test": {"": {**_EVALUATED, **_CALIBRATED, **_UNTRAINED}},
    "predict": {"": _PREDICTED},
}
"""Of each subcommand with hundreds of options: heading, option with what it takes, meaning."""

_FIRST = {
    "fit": """usage: mlcv fit --config NAME|FILE [--option value ...]
       mlcv fit --ckpt_path runs/.../last.ckpt          (goes on)

Trains, validates after each epoch, keeps the best and the last checkpoint.""",
    "validate": """usage: mlcv validate --ckpt_path FILE [--option value ...]

Metrics on the validation split: a table, and in the run's folder val.json and
val_predictions.csv.""",
    "test": """usage: mlcv test --ckpt_path FILE [--option value ...]

Metrics on the test split: a table, and in the run's folder test.json and
test_predictions.csv.""",
    "predict": """usage: mlcv predict --ckpt_path FILE --data.path IMAGES [--option value ...]

Probabilities and labels of any images, or of a split.""",
}

NEXT = """mlcv fit needs to know what to train. One of these:

  mlcv fit --config digits/bce    a first try: nothing to download, a minute
  mlcv init my.csv                your own images: writes a config for a table
  mlcv configs                    lists the experiments on COCO, VOC, ...

`mlcv fit --help` shows the options that matter."""
"""What to do where nothing was said."""


def short_help(subcommand: str) -> str:
    """Help for one of Lightning's subcommands that fits two screens.

    Args:
        subcommand: fit, validate, test or predict.
    """
    lines = [_FIRST[subcommand]]
    for heading, options in SECTIONS[subcommand].items():
        lines += ["", f"{heading or 'options'}:", two_columns(options)]
    if subcommand == "fit":
        lines += [
            "",
            "all options:          mlcv fit --help_all",
            "all classes:          mlcv fit --model.help (or --data.help, ...)",
            "options of a class:   mlcv fit --model.help Classifier",
        ]
    else:
        lines += ["", f"all options: mlcv {subcommand} --help_all"]
    return "\n".join(lines)


def two_columns(rows: Mapping[str, str]) -> str:
    """Names and what they mean, wrapped to the terminal's width, at most 120."""
    width = max(map(len, rows)) + 4
    text = textwrap.TextWrapper(min(shutil.get_terminal_size().columns, 120), subsequent_indent=" " * width)
    return "\n".join(text.fill(f"{f'  {name}':{width}}{meaning}") for name, meaning in rows.items())
