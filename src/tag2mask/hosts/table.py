"""The hosts that there are. A host of one's own is a file beside this one and a line here."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from tag2mask.config import HostConfig
from tag2mask.errors import InputError
from tag2mask.hosts.cam import CamHost
from tag2mask.hosts.host import Host
from tag2mask.hosts.mctformer import MctformerHost
from tag2mask.hosts.seam import SeamHost

HOSTS: dict[str, Callable[[HostConfig, int], Host]] = {
    "cam": CamHost,
    "seam": SeamHost,
    "mctformer": MctformerHost,
}
"""``host.kind`` -> what builds it from the settings and the number of classes."""


def check_kind(config: HostConfig) -> None:
    """Make sure that there is such a host. Raises ``InputError``, which names those that there are."""
    if config.kind not in HOSTS:
        near = difflib.get_close_matches(config.kind, HOSTS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"host.kind is {config.kind!r}; expected one of {', '.join(HOSTS)}.{hint}")


def build_host(config: HostConfig, class_count: int) -> Host:
    """The network that the settings name, for C classes, randomly initialised where it has no weights.

    Raises:
        InputError: an unknown ``host.kind``, or whatever the host refuses.
    """
    check_kind(config)
    return HOSTS[config.kind](config, class_count)
