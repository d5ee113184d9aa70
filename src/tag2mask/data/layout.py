"""What kind of data a folder holds, told from the names in it."""

from __future__ import annotations

from pathlib import Path

from tag2mask.data.class_folders import NO_CLASS, SUFFIXES
from tag2mask.data.tables import FORMS


def has_table(root: Path) -> bool:
    """Whether a folder holds a table of tags by its usual name."""
    return any((root / f"labels{suffix}").exists() for suffix in FORMS)


def layout_of(root: Path) -> str:
    """The ``data.kind`` of a folder; ``folder``, whose reader says what is missing, where nothing else fits."""
    if has_table(root):
        return "folder"
    if (root / "ImageSets").is_dir():
        return "voc"
    if any(root.glob("annotations/instances_*.json")) or any(root.glob("*/_annotations.coco.json")):
        return "coco"
    if any((root / name).is_file() for name in ("dataset_dict.json", "dataset_info.json")):
        return "huggingface"
    if any(root.glob("*.tar")) or any(root.glob("*/*.tar")):
        return "shards"
    return "classes" if _has_class_folders(root) else "folder"


def _has_class_folders(root: Path) -> bool:
    """Whether pictures lie in several folders of their own, one or two levels down; one folder may be anything."""
    def holds_pictures(folder: Path) -> bool:
        return any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())

    inner = [path for path in root.iterdir() if path.is_dir() and path.name not in NO_CLASS]
    homes = [root, *inner]
    return any(
        sum(holds_pictures(path) for path in home.iterdir() if path.is_dir() and path.name not in NO_CLASS) > 1
        for home in homes
    )
