"""Errors a user can cause: what is wrong, where (file, row or key), and what to do, in one message."""


class UserError(Exception):
    """Something the user can mend; the command line prints its message alone and exits with status 2."""


class DataError(UserError):
    """A file, row or image of a data set is missing or malformed."""


class ConfigError(UserError):
    """An option, or a combination of options, cannot work."""


def find_user_error(error: BaseException) -> UserError | None:
    """The first `UserError` in a chain of causes, or None.

    A configuration library wraps what a constructor raises in its own errors, and a data loader's
    worker sends it on with a traceback as its message: both are undone here.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, UserError):
            return _without_worker_traceback(current)
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return None


def _without_worker_traceback(error: UserError) -> UserError:
    text = str(error)
    if "in DataLoader worker process" not in text:
        return error
    marker = f"{type(error).__module__}.{type(error).__qualname__}: "
    return type(error)(text.rpartition(marker)[2].strip())
