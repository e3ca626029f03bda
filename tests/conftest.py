import json
import os
import secrets
import signal
from pathlib import Path

# Before anything imports a hub client, a kernel compiler, or what has threads, which tiny networks only wait for.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

from tests.warm import WarmPython

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


# A shell starts what it runs in the background with Ctrl-C ignored; tests of Ctrl-C are to go on there.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: "first" not in item.keywords)
    for item in items:
        if "slow" in item.keywords and not config.getoption("--run-slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --run-slow"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def seed(request):
    """A fresh seed for each test, printed if it fails; MLCV_TEST_SEED repeats one."""
    value = int(os.environ.get("MLCV_TEST_SEED", secrets.randbelow(2**31)))
    print(f"MLCV_TEST_SEED={value}")
    return value


@pytest.fixture
def rng(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def numpy_rng(seed):
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLCV_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLCV_RUN_DIR", raising=False)


@pytest.fixture(scope="session")
def python():
    """Runs programs as a new Python would; see tests/warm.py."""
    warm = WarmPython()
    yield warm
    warm.close()


@pytest.fixture(scope="session")
def tool(python):
    """Runs a script of tools/; up to three Pythons that it starts are forks, too."""
    root = Path(__file__).parents[1]
    return lambda name, *arguments: python.run(f"tools/{name}", *arguments, cwd=root, timeout=3600, children=3)


@pytest.fixture(scope="session")
def shared_data():
    folder = Path(os.environ.get("MLCV_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; MLCV_SHARED_DATA says where it is")
    return folder


@pytest.fixture
def tiny_clip(tmp_path):
    """Name of a tiny CLIP, and the file of its random weights."""
    open_clip = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    path = tmp_path / "tiny-clip.pt"
    torch.save(open_clip.create_model("tiny-clip").state_dict(), path)
    return "tiny-clip", path
