"""Steps of tasks are imported quickly the first time, and keep nothing from being collected afterwards."""

import gc
import sys

import pytest

from celebflow.tasks import load_quickly, load_step


@pytest.mark.parametrize("enabled", [True, False])
def test_only_a_first_import_freezes_objects(*, enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "celebflow.data.units", raising=False)
    was_enabled = gc.isenabled()
    try:
        gc.enable() if enabled else gc.disable()
        before = gc.get_freeze_count()
        assert load_quickly("celebflow.data.units:join_units").__name__ == "join_units"
        assert gc.get_freeze_count() > before
        gc.unfreeze()
        load_quickly("celebflow.data.units:join_units")
        assert gc.get_freeze_count() == 0
        assert gc.isenabled() is enabled
    finally:
        gc.enable() if was_enabled else gc.disable()


def test_a_step_of_a_task_is_found_by_its_name() -> None:
    assert load_step("recognition", "split").__name__ == "split_each_person"
    with pytest.raises(AttributeError):
        load_quickly("celebflow.paths:nothing")
