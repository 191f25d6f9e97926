"""The order in which a sweep's jobs run."""

from hydra_plugins.runner_blocks.sweeper import rotate_blocks


def jobs(repeats: int, *sizes: int, seed: str | None = None) -> list[list[str]]:
    own = [] if seed is None else [f"seed={seed}"]
    return [[f"repeat={repeat}", f"batch.size={size}", *own] for repeat in range(1, repeats + 1) for size in sizes]


def sizes(ordered: list[list[str]]) -> list[str]:
    return [job[1].removeprefix("batch.size=") for job in ordered]


def test_every_block_has_every_job_and_another_one_first():
    ordered = rotate_blocks(jobs(3, 1, 4, 16))
    assert sizes(ordered) == ["1", "4", "16", "4", "16", "1", "16", "1", "4"]
    assert [job[0] for job in ordered] == [f"repeat={repeat}" for repeat in (1, 2, 3) for _ in range(3)]


def test_the_seed_moves_the_order_and_the_same_seed_gives_the_same():
    assert sizes(rotate_blocks(jobs(2, 1, 4, seed="1"))) == ["4", "1", "1", "4"]
    assert rotate_blocks(jobs(2, 1, 4, seed="7")) == rotate_blocks(jobs(2, 1, 4, seed="7"))


def test_repeats_given_by_hand_behind_other_keys_are_blocks_too():
    """Hydra would run size 1 three times, then size 4 three times."""
    by_hand = [[f"batch.size={size}", f"{key}={repeat}"] for size in (1, 4) for key, repeat in
               (("repeat", 1), ("repeat", 2), ("repeat", 3))]  # fmt: skip
    ordered = rotate_blocks(by_hand)
    assert [job[1] for job in ordered] == [f"repeat={repeat}" for repeat in (1, 1, 2, 2, 3, 3)]
    assert [job[0] for job in ordered[:4]] == [f"batch.size={size}" for size in (1, 4, 4, 1)]
    added = rotate_blocks([[job[0], f"++{job[1]}", "++seed=1"] for job in by_hand])
    assert [job[0] for job in added[:2]] == ["batch.size=4", "batch.size=1"]


def test_a_sweep_without_repeats_runs_as_it_is_written():
    assert sizes(rotate_blocks(jobs(1, 16, 4, 1, seed="5"))) == ["16", "4", "1"]
    assert rotate_blocks([["batch.size=2"], ["batch.size=1"]]) == [["batch.size=2"], ["batch.size=1"]]
