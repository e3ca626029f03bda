"""`mlcv self_train`: U-SelfTrained (Irvin et al., AAAI 2019, arXiv 1901.07031, section 3.3) in one command."""

from collections.abc import Sequence
from pathlib import Path

from mlcv.command_line import take
from mlcv.commands.arguments import parser_of
from mlcv.commands.begun import begin
from mlcv.commands.stages import call, train
from mlcv.errors import ConfigError
from mlcv.shipped_configs import find_config
from mlcv.trust import trusting


def self_train(config: str | Path, folder: str | Path = "runs/self-trained", options: Sequence[str] = ()) -> Path:
    """Trains a model that ignores uncertain labels, and a second one on its probabilities where labels are uncertain.

    What is finished is not repeated, and a stage that was stopped is resumed. Each stage is a process of its own.

    Args:
        config: an experiment. What its policy says of single classes stays; of all others it is set here.
        folder: of both runs, `ignore` and `self_trained`, and of `soft_labels.npy`.
        options: more of `mlcv fit`, for both, but for the run's folder and checkpoint.

    Returns:
        the folder of the second run.

    Raises:
        ConfigError: if a stage fails, which has said why, or the folder holds what was made with other arguments.
    """
    folder, config = Path(folder), find_config(str(config))
    packages, options = take(options, "--trust")
    if not Path(config).is_file():
        raise ConfigError(f"--config: no file {config}")
    if any(take(options, name)[0] for name in ("--run_dir", "--ckpt_path")):
        raise ConfigError("self_train: --folder says where both runs are; leave --run_dir and --ckpt_path out")
    soft = folder / "soft_labels.npy"
    with trusting(packages):
        ignoring = ["--data.policy.uncertain=ignore", "--data.policy.soft_labels=null"]
        first = _fit(folder / "ignore", config, [*options, *ignoring])
        begin(soft, first, chosen_by="--folder")
        if not soft.is_file():
            call("predict", f"--ckpt_path={first}", "--split=train", f"--predictions={soft}", "--calibration=none")
        learning = ["--data.policy.uncertain=self_trained", f"--data.policy.soft_labels={soft}"]
        _fit(folder / "self_trained", config, [*options, *learning])
    return folder / "self_trained"


def main(arguments: Sequence[str]) -> None:
    """As the command line calls it."""
    options, others = parser_of("self_train").parse_known_args(arguments)
    run = self_train(options.config, options.folder, others)
    print(f"test it: mlcv test --ckpt_path {run}/checkpoints/best.ckpt")  # noqa: T201


def _fit(run_dir: Path, config: str, options: Sequence[str]) -> Path:
    """The best checkpoint, or the last."""
    last = train(run_dir, [f"--config={config}", *options], "--folder")
    best = last.with_name("best.ckpt")
    return best if best.is_file() else last
