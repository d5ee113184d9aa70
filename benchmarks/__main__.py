"""Measure the ratios: ``python -m benchmarks NAME`` for one, ``python -m benchmarks`` for all.

Each benchmark is a module with BAR (the largest ratio that passes), DESCRIPTION (one line) and measure() ->
ratio. The exit code is 0 when every measured ratio is at most its bar, 1 when one is not, 2 for an unknown
name. A benchmark that cannot be
measured here, for want of a package, is skipped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from tag2mask.errors import InputError

MODULES = {
    "fpr-step": "benchmarks.fpr_step",
    "collect": "benchmarks.collect",
    "evaluate": "benchmarks.evaluate",
    "pool-memory": "benchmarks.pool_memory",
    "collect-memory": "benchmarks.collect_memory",
    "localize-memory": "benchmarks.localize_memory",
    "crf": "benchmarks.crf",
    "walk": "benchmarks.walk",
    "predict": "benchmarks.predict",
    "advcam": "benchmarks.advcam",
    "mctformer": "benchmarks.mctformer",
    "explore": "benchmarks.explore",
    "ranks": "benchmarks.ranks",
}


def run(name: str) -> tuple[float, float, str]:
    """The measured ratio of a benchmark, its bar and its description; imports no other benchmark."""
    benchmark = import_module(MODULES[name])
    return benchmark.measure(), benchmark.BAR, benchmark.DESCRIPTION


def verdict(measured: float, bar: float) -> str:
    """``pass`` or ``MISS``; a ratio that is not a number misses."""
    return "pass" if measured <= bar else "MISS"


def main(arguments: Sequence[str]) -> int:
    """Run one benchmark or all; returns the exit code."""
    unknown = [name for name in arguments if name not in MODULES]
    if unknown or len(arguments) > 1:
        wrong = f"Unknown benchmark {unknown[0]!r}" if unknown else "More than one benchmark is named"
        print(f"{wrong}; give one of {', '.join(MODULES)}, or no name to run them all.", file=sys.stderr)
        return 2
    if arguments:
        (name,) = arguments
        try:
            measured, bar, description = run(name)
        except InputError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        print(description)
        print(f"{name}: {measured:.3f} (bar: at most {bar:.2f}), {verdict(measured, bar)}")
        return 0 if measured <= bar else 1

    results = {}
    for name in MODULES:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            results[name] = run(name)
        except InputError as error:
            print(f"{name}: skipped: {error}", file=sys.stderr)
    print(f"{'benchmark':<12} {'measured':>9} {'bar':>6} {'':<5} what")
    for name, (measured, bar, description) in results.items():
        print(f"{name:<12} {measured:>9.3f} {bar:>6.2f} {verdict(measured, bar):<5} {description}")
    return 0 if all(measured <= bar for measured, bar, _ in results.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
