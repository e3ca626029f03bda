"""What starts processes: Lightning itself, torchrun, or a cluster's scheduler; told by the environment alone."""

import os

RUN_DIR_VARIABLE = "MLCV_RUN_DIR"
"""How the first process tells those it starts where the run's folder is."""
STAGE_VARIABLE = "MLCV_STAGE"
"""How a command of several stages tells each that it says itself how to go on."""


def process_rank() -> int:
    """Of this process among all, 0 if it is alone; of those that Lightning starts, among those of its machine."""
    return _number("RANK", "LOCAL_RANK", "SLURM_PROCID")


def run_dir_of_first() -> str | None:
    """The run's folder, if the first process has started this one; None else."""
    return os.environ.get(RUN_DIR_VARIABLE) if "LOCAL_RANK" in os.environ else None


def starts_apart() -> bool:
    """Whether something has started several processes that know nothing of each other yet, as torchrun and srun do."""
    is_interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # Lightning's rule
    count = _number("WORLD_SIZE", *([] if is_interactive else ["SLURM_STEP_NUM_TASKS"]))
    return run_dir_of_first() is None and count > 1


def is_requeued() -> bool:
    """Whether a cluster has started this job again, after it had to end."""
    return _number("SLURM_RESTART_COUNT") > 0


def _number(*names: str) -> int:
    """The first of these variables that is a number; 0 without one."""
    return next((int(value) for name in names if (value := os.environ.get(name, "")).isdigit()), 0)
