"""What is written for people: names stand as they are, whatever they look like to a terminal's markup."""

from rich.console import Console


def console() -> Console:
    """Writes to standard output; `[red]` and `:smile:` in a class's name are letters, not markup."""
    return Console(markup=False, emoji=False, highlight=False)
