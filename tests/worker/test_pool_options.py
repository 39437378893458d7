"""Each option and setting that a pool cannot follow is named."""

import pytest

from qbroker_worker.pool_options import unfit, without_effect

PER_CHILD = ["--max-tasks-per-child", "--max-memory-per-child", "--pool-start-method"]


@pytest.mark.parametrize("pool", ["threads", "solo", "asyncio"])
@pytest.mark.parametrize("option", PER_CHILD)
def test_options_about_children_need_the_prefork_pool(pool: str, option: str) -> None:
    sentence = unfit(pool, [option])

    assert sentence.startswith(f"{option} cannot be used with the {pool} pool")
    assert "prefork" in sentence


def test_the_solo_pool_cannot_be_scaled_and_the_others_can() -> None:
    pools = ["prefork", "threads", "asyncio", "solo"]

    assert [bool(unfit(pool, ["--autoscale"])) for pool in pools] == [False, False, False, True]
    assert unfit("prefork", [*PER_CHILD, "--autoscale"]) == ""


@pytest.mark.parametrize("pool", ["threads", "solo", "asyncio"])
def test_settings_about_children_are_one_warning_with_another_pool(pool: str) -> None:
    settings = ["worker_max_tasks_per_child", "worker_max_memory_per_child", "task_time_limit"]

    (sentence,) = without_effect(pool, settings)

    assert f"No effect with the {pool} pool: {', '.join(settings[:2])};" in sentence
    assert without_effect("prefork", settings) == ()
    assert without_effect(pool, ["task_time_limit"]) == ()
