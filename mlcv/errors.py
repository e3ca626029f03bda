"""Errors a user can cause: what is wrong, where (file, row or key), and what to do, in one message."""

import errno
import re
import signal
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path


class UserError(Exception):
    """Something the user can mend; the command line prints its message alone and exits with status 2."""


class DataError(UserError):
    """A file, row or image of a data set is missing or malformed."""


class AbsentError(DataError):
    """A split, or all that its labels are read from, is not there."""


class ConfigError(UserError):
    """An option, or a combination of options, cannot work."""


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuses a word that is none of the choices; Python itself does not.

    Raises:
        ConfigError: naming the argument and the choices.
    """
    if value not in choices:
        raise ConfigError(f"{name} is one of {', '.join(choices)}; got {value!r}")


def listed(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Paths as a list; one alone is a list of one."""
    return [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]


class Stopped(KeyboardInterrupt):
    """Ctrl-C, or a request to end; the command line says so and exits with 128 and the signal's number.

    Args:
        signum: of the signal.
        advice: how to go on.
    """

    def __init__(self, signum: int = signal.SIGINT, advice: str = "") -> None:
        super().__init__()
        self.signum, self.advice = signum, advice


_RESUME = "a training goes on with mlcv fit --ckpt_path <run>/checkpoints/last.ckpt"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_LIGHTNING = re.compile(r"[/\\]lightning[/\\](pytorch|fabric)[/\\]")
# What the system does to a run that did nothing wrong, as the libraries tell it.
_MISHAPS = (
    (
        re.compile(r"DataLoader worker \(pid.*?\) (is killed by signal: \w+( \w+)?|exited unexpectedly)"),
        "a loader process was killed ({0}), most often because memory ran out: lower data.num_workers, data.batch_size "
        f"or data.image_size, and give the command again; {_RESUME}",
    ),
    (
        re.compile(r"OutOfMemoryError|CUDA out of memory"),
        "the GPU's memory is full: lower data.batch_size (trainer.accumulate_grad_batches makes up for it) or "
        f"data.image_size, or set trainer.precision 16-mixed; {_RESUME}",
    ),
    (
        re.compile(r"^MemoryError|can't allocate memory|Cannot allocate memory|bad_alloc"),
        f"the machine's memory is full: lower data.batch_size, data.image_size or data.num_workers; {_RESUME}",
    ),
    (
        re.compile(r"Connection (closed|reset) by peer|DistNetworkError|ncclRemoteError|Broken pipe.*(gloo|store)"),
        "another process of this run has ended: its own message says why, and if there is none it was killed, most "
        f"often because memory ran out; {_RESUME}",
    ),
)  # fmt: skip
# What libraries say of options, which they check themselves.
_REFUSALS = (
    (re.compile(r"^MisconfigurationException: (.*)", re.DOTALL), "{0}"),  # Lightning's own word for what a user mends
    (
        re.compile(r"When using the learning rate finder"),
        "LearningRateFinder cannot move model.optim.lr, by which the schedule is planned: compare rates in whole runs",
    ),
    (re.compile(r"^ModuleNotFoundError: (.*)", re.DOTALL), "a package is not installed ({0})"),
    (re.compile(r"^RuntimeError: (Early stopping conditioned on metric.*)", re.DOTALL), "{0}"),
)


def find_user_error(error: BaseException) -> UserError | None:
    """The first `UserError` in a chain of causes, or one that says what the system did; None if it is neither.

    A configuration library wraps what a constructor raises in its own errors, and a data loader's
    worker sends it on with a traceback as its message: both are undone here.
    """
    chain = list(chain_of(error))
    found = next((one for one in chain if isinstance(one, UserError)), None)
    if found is not None:
        return _without_worker_traceback(found)
    return next(filter(None, [*map(_mishap, chain), *map(_refusal, chain_of(error, handled=False))]), None)


def chain_of(error: BaseException | None, *, handled: bool = True) -> Iterator[BaseException]:
    """An error, what caused it, what caused that, and so on; or without those that were dealt with on the way."""
    seen: set[int] = set()
    current = error
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        current = current.__cause__ or (current.__context__ if handled else None)


def one_line(error: BaseException) -> str:
    """Type and message of an error, short enough for a sentence."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _mishap(error: BaseException) -> UserError | None:
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return ConfigError(
            f"there is no room to write ({error.strerror}). What was written before is whole: make room and give the "
            f"command again; {_RESUME}"
        )
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, (EOFError, ConnectionError, FileNotFoundError)) and _is_from_loader(error):
        text = "DataLoader worker (pid) exited unexpectedly"  # the first sign may be a pipe that breaks
    return _told(text, _MISHAPS)


def _refusal(error: BaseException) -> UserError | None:
    if isinstance(error, ValueError) and _LIGHTNING.search("".join(files_of(error)[-1:])):
        return ConfigError(f"the Trainer refuses its options ({' '.join(str(error).split())})")
    return _told(f"{type(error).__name__}: {error}", _REFUSALS)


def _told(text: str, sentences: Iterable[tuple[re.Pattern[str], str]]) -> UserError | None:
    for pattern, sentence in sentences:
        if match := pattern.search(text):
            return ConfigError(sentence.format(*(" ".join((group or "").split()) for group in match.groups())))
    return None


def _is_from_loader(error: BaseException) -> bool:
    return any("torch" in file and "multiprocessing" in file for file in files_of(error))


def files_of(error: BaseException) -> list[str]:
    """Through which an error came, that where it arose last."""
    return [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]


def _without_worker_traceback(error: UserError) -> UserError:
    text = str(error)
    if "in DataLoader worker process" not in text:
        return error
    marker = f"{type(error).__module__}.{type(error).__qualname__}: "
    return type(error)(text.rpartition(marker)[2].strip())
