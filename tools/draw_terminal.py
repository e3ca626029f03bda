#!/usr/bin/env python
"""Draws what commands print in 80 columns as an SVG, such as that of the README.

tools/draw_terminal.py docs/terminal.svg --folder FOLDER "mlcv init my.csv" "mlcv fit --config my.yaml"
"""

import argparse
import os
import subprocess
from pathlib import Path

from rich.console import Console
from rich.text import Text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("commands", nargs="+")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the commands run")
    options = parser.parse_args()
    environment = {**os.environ, "COLUMNS": "80", "PYTHONUNBUFFERED": "1"}
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=80, file=nowhere, force_terminal=True)
        for command in options.commands:
            done = subprocess.run(
                command, shell=True, cwd=options.folder, env=environment, check=True, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            console.print(Text(f"$ {command}", style="bold"), Text(done.stdout), sep="\n")
    options.picture.write_text(console.export_svg(title="mlcv"))


if __name__ == "__main__":
    main()
