"""Which tar files a data set in shards has, and where they lie: in a folder, or fetched from a URL once."""

from __future__ import annotations

import hashlib
import os
import re
from glob import escape
from pathlib import Path

from tag2mask.config import DataConfig
from tag2mask.data.coco import SPLIT
from tag2mask.data.files import fault
from tag2mask.errors import InputError

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
FETCHED = ("http", "https", "hf", "gs")
"""What is handed to the library webdataset; its `pipe:` would run a command."""


def is_url(root: str) -> bool:
    """Whether the shards come by URL."""
    return SCHEME.match(root) is not None


def shard_files(config: DataConfig) -> tuple[Path, ...]:
    """The tar files of the split, sorted by name; those of a URL are fetched into ``config.shard_cache`` if need be.

    In a folder: <split>/*.tar, <split>-*.tar, <split>_*.tar or <split>.tar; `all` stands for every tar file.

    Raises:
        InputError: there are none, they are compressed, or one cannot be fetched.
    """
    if is_url(config.root):
        return tuple(_fetched(url, Path(config.shard_cache)) for url in _urls(config))
    root, split = Path(config.root), config.split
    if not root.is_dir():
        raise fault(root, "there is no such folder", "correct data.root")
    patterns = tuple(f"{escape(split)}{end}" for end in ("/*.tar", "-*.tar", "_*.tar", ".tar"))
    if split == "all":
        patterns = ("**/*.tar",)
    found = next((paths for pattern in patterns if (paths := sorted(root.glob(pattern)))), [])
    if found:
        return tuple(found)
    packed = sorted([*root.glob("**/*.tar.*"), *root.glob("**/*.tgz")])
    if packed:
        raise fault(packed[0], "compressed tar files cannot be read at any place", "unpack them to plain .tar files")
    there = [path.relative_to(root).as_posix() for path in sorted(root.glob("**/*.tar"))]
    todo = "put them there"
    if there:
        todo = f"name files such as {there[0]} after their split, or set data.split to `all`"
    raise fault(root / f"{split}-*.tar", f"there are no tar files of the split {split!r}", todo)


def every_file(config: DataConfig) -> tuple[Path, ...]:
    """The tar files of all splits that are at hand."""
    if is_url(config.root):
        return shard_files(config)
    return tuple(sorted(Path(config.root).glob("**/*.tar")))


def _urls(config: DataConfig) -> list[str]:
    scheme = SCHEME.match(config.root)
    if scheme is None or scheme[1].lower() not in FETCHED:
        raise fault("data.root", f"{config.root!r} is of a kind that is not fetched", f"use {', '.join(FETCHED)}")
    if not config.shard_cache:
        todo = "name a folder in data.shard_cache: photos are read in any order, so the files must be on disk"
        raise fault("data.root", f"{config.root!r} is a URL, and there is no place to keep its files", todo)
    try:
        from braceexpand import braceexpand
    except ImportError:
        raise _not_installed() from None
    try:
        return list(braceexpand(config.root.replace(SPLIT, config.split)))
    except ValueError:
        raise fault("data.root", f"{config.root!r} has an unbalanced brace", "write for example {000..012}") from None


def _fetched(url: str, cache: Path) -> Path:
    """The file of a URL in the cache: fetched under another name and renamed, so it is whole or not there."""
    try:
        from webdataset.cache import FileCache
    except ImportError:
        raise _not_installed() from None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return Path(FileCache(str(cache), url_to_name=_cache_name).get_file(url))
    except (OSError, ValueError, AssertionError) as error:
        for partial in cache.glob(f"{_cache_name(url)}.temp{os.getpid()}"):
            partial.unlink(missing_ok=True)
        reason = " ".join(str(error).split())[:200]
        raise fault(url, f"the file cannot be fetched ({reason})", "check the address and the network") from None


def _cache_name(url: str) -> str:
    """Two addresses may end in the same name."""
    return f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{re.sub(r'[^A-Za-z0-9._-]', '_', url.rpartition('/')[2])}"


def _not_installed() -> InputError:
    return InputError(
        "shards by URL need the package webdataset, which is not installed; run `pip install 'tag2mask[tar]'`, or "
        "fetch the tar files yourself and name their folder."
    )
