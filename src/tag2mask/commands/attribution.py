"""The options of the commands that localize with a trained network in another way than by its class maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def with_attribution(parser: Any, arguments: list[str]) -> tuple[Any, Any]:
    """Parse with ``--method`` and ``--maps.advcam.OPTION``; returns the values and the ``MapsConfig`` they ask for.

    What is not given is as in the run.
    """
    from dataclasses import asdict, replace

    from tag2mask.config import AdvcamConfig
    from tag2mask.config.maps import ATTRIBUTIONS
    from tag2mask.settings import build, with_lists

    parser.add_argument(
        "--method", default="", type=str,
        help=f"How the networks localize: {', '.join(ATTRIBUTIONS)}; default: the run's, cam unless told otherwise.",
    )  # fmt: skip
    parser.add_class_arguments(AdvcamConfig, "maps.advcam")
    given = with_lists(arguments, "maps")
    first = parser.parse_args(given)  # which run decides the defaults of the rest
    from tag2mask.stages.pipeline import read_settings

    stored = read_settings(Path(first.run)).maps
    parser.set_defaults({f"maps.advcam.{name}": value for name, value in asdict(stored.advcam).items()})
    values = parser.parse_args(given)
    advcam = build(AdvcamConfig, values.as_dict()["maps"]["advcam"], "the settings", "maps.advcam.")
    return values, replace(stored, method=values.method or stored.method, advcam=advcam)
