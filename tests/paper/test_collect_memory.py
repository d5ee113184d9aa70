"""The prototype pass over many images takes the memory of the pass over a few."""

from __future__ import annotations

from benchmarks.collect_memory import collected


def test_ten_times_the_images_in_the_same_memory() -> None:
    """2,000 and 20,000 simulated images through the real pass, a process each; the pools are full in the larger one."""
    small, large = collected(2_000)[0], collected(20_000)[0]
    assert large / small <= 1.05
