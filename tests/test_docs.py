"""The Python blocks of README and docs run; links between pages lead somewhere."""

import re
from pathlib import Path

import pytest

from mlcv.shipped_configs import find_config

OF_THE_READER = {"my.yaml", "new.yaml", "FILE"}
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(page, block, id=f"{page.relative_to(ROOT)}-{n}")
    for page in PAGES
    for n, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_a_python_block_runs_as_it_stands(page, block, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if page.name == "README.md":
        # The five lines train on 4,000 scenes; here a few must do.
        block = block.replace("batch_size=64", "num_train=64, num_val=16, num_test=16, batch_size=16")
    exec(compile(block, str(page), "exec"), {"__name__": "block"})


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_name_configs_that_exist(page):
    for config in re.findall(r"--config ([\w/.]+\w)", page.read_text()):
        if config not in OF_THE_READER:
            assert (ROOT / config).is_file() or find_config(config), f"{page.name} names {config}"


def test_every_public_loss_data_set_and_head_is_in_the_readme():
    import mlcv.data
    import mlcv.losses
    import mlcv.models

    text = (ROOT / "README.md").read_text()
    names = [*mlcv.losses.__all__, *(n for n in mlcv.data.__all__ if n.endswith("DataModule")), *mlcv.models.__all__]
    absent = [n for n in names if n not in text and n not in {"Backbone", "Head", "MultiLabelDataModule"}]
    assert not absent
