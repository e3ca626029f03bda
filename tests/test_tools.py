"""The comparison of losses on partial labels runs, resumes and refuses what it does not know."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FEW = ["--data.num_train=64", "--data.num_val=16", "--data.num_test=16", "--trainer.max_epochs=1"]


def compare(*arguments):
    command = [sys.executable, "tools/compare.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_a_comparison_gives_a_table_a_plot_and_rows_and_does_nothing_twice(tmp_path):
    arguments = ["--folder", tmp_path, "--seeds=2", "--methods", "PU-MLC", "--settings", "10 %", "--jobs=2", "--", *FEW]
    first = compare(*arguments)
    assert "| 10 % | PU-MLC |" in first.stdout, first.stderr
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 3
    assert (tmp_path / "plot.png").stat().st_size > 5000
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("test.json")}
    assert len(stamps) == 2
    assert compare(*arguments).stdout == first.stdout
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_a_comparison_names_what_it_knows(tmp_path):
    refused = compare("--folder", tmp_path, "--methods", "magic")
    assert refused.returncode == 2
    assert "'magic' is none of: PU-MLC" in refused.stderr
