"""What starts processes: Lightning itself, torchrun, or a cluster's scheduler; told by the environment alone."""

import os

RUN_DIR_VARIABLE = "MLCV_RUN_DIR"
"""How the first process tells those it starts where the run's folder is."""


def process_rank() -> int:
    """Of this process among all, 0 if it is alone."""
    return int(next((os.environ[name] for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if name in os.environ), "0"))


def run_dir_of_first() -> str | None:
    """The run's folder, if the first process has started this one; None else."""
    return os.environ.get(RUN_DIR_VARIABLE) if "LOCAL_RANK" in os.environ else None


def starts_apart() -> bool:
    """Whether something has started several processes that know nothing of each other yet, as torchrun and srun do."""
    count = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or "1"
    return run_dir_of_first() is None and int(count) > 1


def is_requeued() -> bool:
    """Whether a cluster has started this job again, after it had to end."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or "0") > 0
