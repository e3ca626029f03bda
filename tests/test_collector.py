import gc
import subprocess
import sys

import pytest

from mlcv.collector import imported, without_collector


@pytest.mark.parametrize("was_enabled", [True, False])
def test_the_collector_is_off_meanwhile_and_as_before_afterwards(was_enabled):
    (gc.enable if was_enabled else gc.disable)()
    try:
        with without_collector():
            assert not gc.isenabled()
        with pytest.raises(KeyError), without_collector():
            raise KeyError
        assert gc.isenabled() == was_enabled
    finally:
        gc.enable()


def test_what_a_first_import_has_made_is_never_walked_again_and_a_second_one_freezes_nothing():
    script = """if True:
        import gc
        from mlcv.collector import imported
        before = gc.get_freeze_count()
        first = imported("email.mime.text", freezes=True)
        frozen = gc.get_freeze_count()
        held = [[] for _ in range(1000)]
        assert imported("email.mime.text", freezes=True) is first
        print(before, frozen > 1000, gc.get_freeze_count() == frozen, gc.isenabled())
    """
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["0", "True", "True", "True"]


def test_an_absent_module_is_an_error_and_the_collector_runs_on():
    with pytest.raises(ModuleNotFoundError):
        imported("mlcv.no_such_module")
    assert gc.isenabled()


def test_a_program_that_calls_a_command_does_not_keep_its_own_garbage():
    script = """if True:
        import gc, sys, weakref
        from mlcv.cli import main
        class Cycle:
            pass
        lost = Cycle()
        lost.itself, alive = lost, weakref.ref(lost)
        del lost
        assert main(["configs"]) == 0
        gc.collect()
        print(gc.get_freeze_count(), alive() is None, file=sys.stderr)
    """
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stderr.split() == ["0", "True"]
