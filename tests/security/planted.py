"""What an attacker would plant, and a watch that counts what of it comes to life."""

import contextlib
import sys

import yaml

MODULE = """
import os, pathlib
here = pathlib.Path(__file__).parent
(here / "imported").write_text("")

class Bomb:
    def __init__(self, *args, **kwargs):
        (here / "built").write_text("")

def bomb(*args, **kwargs):
    (here / "called").write_text("")
    return "x"
"""
_FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "pty.spawn")
_watching = False
_events = []


def _hook(event, arguments):
    if not _watching:
        return
    if event in _FORBIDDEN or (event == "import" and str(arguments[0]).partition(".")[0] == "planted_module"):
        _events.append((event, str(arguments)[:200]))
    if event == "open" and "secret" in str(arguments[0]):
        _events.append((event, str(arguments)[:200]))


sys.addaudithook(_hook)


@contextlib.contextmanager
def watch():
    """Yields a list of what happened that must not: processes, connections, imports of what was named, secrets read."""
    global _watching  # an audit hook can never be taken away
    _events.clear()
    _watching = True
    try:
        yield _events
    finally:
        _watching = False


def prepare(folder):
    """Writes what payloads name: a module in the working directory, a secret, a config that names a command."""
    (folder / "planted_module.py").write_text(MODULE)
    (folder / "secret.txt").write_text("token: 12345\n")
    (folder / "payload.yaml").write_text(yaml.safe_dump(_commands(folder)[0]))
    return folder


def markers(folder):
    """What the payloads have left behind."""
    return [path.name for path in folder.iterdir() if path.name in {"imported", "built", "called", "touched"}]


def _commands(folder):
    touch = ["touch", str(folder / "touched")]
    return [
        {"class_path": "subprocess.Popen", "init_args": {"args": touch}},
        {"class_path": "os.system", "init_args": {"command": " ".join(touch)}},
        {"class_path": "planted_module.Bomb"},
        {"class_path": "planted_module.bomb", "init_args": {}},
        {"class_path": "functools.partial", "init_args": {"func": "os.system"}},
        {"class_path": "subprocess.Popen", "dict_kwargs": {"args": touch}},
        {"class_path": "mlcv.methods.base.subprocess.Popen", "init_args": {"args": touch}},
    ]


def values(folder):
    """Payloads to put in the place of a value."""
    specs = _commands(folder)
    texts = [yaml.safe_dump(spec, default_flow_style=True).strip() for spec in specs]
    deep = []
    for _ in range(40):
        deep = [deep]
    return [
        *specs, *texts, [specs[0]], {"inner": specs[0]}, [texts[0]], {"inner": texts[1]},
        "planted_module.Bomb", "planted_module.bomb", "os.system", str(folder / "payload.yaml"),
        str(folder / "secret.txt"), f"!!python/object/apply:os.system ['touch {folder / 'touched'}']",
        {"pretrained_cfg_overlay": {"url": "http://127.0.0.1:9/x"}}, {"url": "http://127.0.0.1:9/x"},
        "../../x", deep, 10**30, -1, True, None, "", [], {},
    ]  # fmt: skip


def keys(folder):
    """Payloads to put beside what is in a mapping."""
    spec, named = _commands(folder)[0], str(folder / "payload.yaml")
    names = (
        "class_path", "init_args", "dict_kwargs", "config", "hparams", "module_arguments", "callbacks", "logger",
        "_instantiator", "__path__", "pretrained_cfg_overlay", "checkpoint_path", "profiler", "plugins",
        "default_root_dir", "run_dir",
    )  # fmt: skip
    return [(name, payload) for name in names for payload in (spec, "planted_module.bomb", named)]


def mutants(tree, folder):
    """Every tree that differs from this one by one payload, with the place of it."""
    for place in _places(tree):
        for number, value in enumerate(values(folder)):
            yield f"{place} = value {number}", _with(tree, place, value)
        if isinstance(_at(tree, place), dict):
            for name, payload in keys(folder):
                yield f"{place} + {name}", _with(tree, (*place, name), payload)


def _places(tree, place=()):
    yield place
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, (list, tuple)) else ()
    for key, inner in items:
        yield from _places(inner, (*place, key))


def _at(tree, place):
    for key in place:
        tree = tree[key]
    return tree


def _with(tree, place, value):
    if not place:
        return value
    key, *rest = place
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    if isinstance(copy, dict):
        copy[key] = _with(copy.get(key), rest, value)
    else:
        copy[key] = _with(copy[key], rest, value)
    return copy
