"""What the page asks and what it gets: one method for each question, plain values in and out."""

from __future__ import annotations

import base64
import re
import shlex
import threading
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tag2mask.config import FPRConfig
from tag2mask.data import TaggedImages
from tag2mask.data.images import image_paths
from tag2mask.errors import InputError
from tag2mask.explore import embedding
from tag2mask.explore.opened import OpenedRun
from tag2mask.explore.photos import Thumbnails, jpeg, uploaded
from tag2mask.explore.prototypes import Sources, confusions, described, listed, read_sources
from tag2mask.explore.statistics import (
    NO_FILE,
    Statistics,
    file_facts,
    grid_of,
    load_arrays,
    save_arrays,
    statistics_file,
)
from tag2mask.explore.work import Job, Steps, Worker
from tag2mask.presets import method_config
from tag2mask.stages.blocked import FILE, SEVERAL_SEEDS, Pairs, fits, read_blocked, write_blocked
from tag2mask.stages.table import TITLES

if TYPE_CHECKING:
    from tag2mask.stages.exploration import ClassMaps, Network

PHOTOS_PER_PAGE = 60
USES_PER_PAGE = 24
MAPS_IN_MEMORY = 512
NEW_LONGEST_SHOWN = 640


class Explorer:
    """A run that is looked at. Its methods may be called from several threads."""

    def __init__(self, run: Path) -> None:
        self.run = OpenedRun(run)
        self.folder = run
        self.worker, self.planes = Worker("network"), Worker("map of prototypes")
        self._network: Network | None = None  # of the worker's thread alone
        self._maps: Callable[[int, int, str], ClassMaps] = lru_cache(MAPS_IN_MEMORY)(self._ask_maps)
        self._lock = threading.Lock()
        self.run.images(self.run.config.seeds[0])  # what is wrong with the data is told before the page opens

    def close(self) -> None:
        """End the threads."""
        self.worker.close()
        self.planes.close()

    # The run

    def overview(self) -> dict[str, Any]:
        """What the page needs before anything else."""
        config = self.run.config
        first = self.images(config.seeds[0])
        return {
            "run": str(self.folder),
            "kind": config.data.kind,
            "classes": list(first.classes.names),
            "seeds": [
                {
                    "seed": seed, "photos": len(self.images(seed)), "trained": self.run.trained(seed),
                    "methods": [
                        {"name": m, "moments": self.run.moments(seed, m), "epochs": len(self.run.epoch_files(seed, m))}
                        for m in self.run.with_prototypes(seed)
                    ],
                }
                for seed in config.seeds
            ],
            "titles": {**TITLES, "fpr": "FPR"}, "blockable": fits(config), "several_seeds": SEVERAL_SEEDS,
            **self.blocked(),
        }  # fmt: skip

    def images(self, seed: int) -> TaggedImages:
        """The images of a seed."""
        return self.run.images(seed)

    def thumbnails(self, seed: int) -> Thumbnails:
        """The small photos of a seed."""
        return self._thumbnails(seed)

    @cached_property
    def _thumbnails(self) -> Callable[[int], Thumbnails]:
        return lru_cache(None)(lambda seed: Thumbnails(self.folder, self.images(seed), self.run.source(seed)))

    def photo(self, seed: int, image: int, longest: int) -> bytes:
        """A large photo as JPEG."""
        return jpeg(self.thumbnails(seed).photo(image, longest), longest)

    def page_of_images(self, seed: int, c: int | None, untagged: bool, page: int) -> dict[str, Any]:
        """A page of photos: of a class, of those without a tag, or of all."""
        images = self.images(seed)
        chosen = chosen_images(images, c, untagged)
        rows = [self._image(images, int(i)) for i in chosen[page * PHOTOS_PER_PAGE :][:PHOTOS_PER_PAGE]]
        return {"images": rows, "all": len(chosen), "per_page": PHOTOS_PER_PAGE, "page": page}

    def image(self, seed: int, image: int, c: int | None, untagged: bool) -> dict[str, Any]:
        """A photo with its neighbours in such a choice of photos, around whose ends one comes to the other."""
        images = self.images(seed)
        chosen = chosen_images(images, c, untagged)
        before, after = np.searchsorted(chosen, image, "left"), np.searchsorted(chosen, image, "right")
        beside = [int(chosen[place % len(chosen)]) if len(chosen) else image for place in (before - 1, after)]
        return {**self._image(images, image), "previous": beside[0], "next": beside[1], "of": len(chosen)}

    def _image(self, images: TaggedImages, image: int) -> dict[str, Any]:
        return {"image": image, "id": images.ids[image], "tags": list(images.label_names(image))}

    # Prototypes

    def confused(self, seed: int, method: str, moment: str) -> dict[str, Any]:
        """Each class with what it is confused with."""
        sources, statistics = self._sources(seed, method, moment), self.statistics(seed, method, moment)
        rows = confusions(self.images(seed), sources, statistics)
        return {"classes": rows, **self._counted(seed, method, statistics)}

    def negatives(self, seed: int, method: str, moment: str, c: int) -> dict[str, Any]:
        """The negative prototypes of a class."""
        sources, statistics = self._sources(seed, method, moment), self.statistics(seed, method, moment)
        return {
            "prototypes": listed(self.images(seed), sources, c, self._shown_blocked(), statistics),
            "found": sources.found(c),
            **self._counted(seed, method, statistics),
        }

    def _counted(self, seed: int, method: str, statistics: Statistics | None) -> dict[str, Any]:
        """Whether the pass is done, which photos it left out, and whether the support of negatives is what trims."""
        fpr = method_config(method, self.run.config.fpr)
        others = fpr.superclass_trim or fpr.explained_trim or fpr.likeness_trim > 0
        return {
            "counted": statistics is not None,
            "unreadable": [self.images(seed).ids[image] for image in statistics.unreadable] if statistics else [],
            "trimmed_by_support": fpr.support == "drop" and not others,
        }

    def uses(self, seed: int, method: str, moment: str, c: int, rank: int, page: int) -> dict[str, Any]:
        """A negative prototype, and a page of the images in which it suppresses, with the suppressed pixels."""
        images, sources = self.images(seed), self._sources(seed, method, moment)
        if rank >= sources.valid.shape[1] or not sources.valid[c, rank]:
            raise InputError(f"{images.classes.names[c]} has no negative of rank {rank + 1} here.")
        statistics = self.statistics(seed, method, moment)
        answer: dict[str, Any] = {
            "prototype": described(images, int(sources.image[c, rank]), c, rank, self._shown_blocked(), statistics),
            "ranks": np.flatnonzero(sources.valid[c]).tolist(), **self._counted(seed, method, statistics),
            "images": [], "all": 0, "per_page": USES_PER_PAGE, "page": page,
        }  # fmt: skip
        if statistics is not None:
            table = statistics.images_of(c, rank)
            answer["all"] = len(table)
            for image, pixels in table[page * USES_PER_PAGE :][:USES_PER_PAGE].tolist():
                grid = statistics.suppressed(c, image)
                assert grid is not None  # the table was made of these grids
                painted = np.where(grid == rank, 2, grid >= 0).astype(np.uint8)  # 1: nearest to another negative
                answer["images"].append({**self._image(images, image), "pixels": pixels, "grid": grid_of(painted)})
        return answer

    def _sources(self, seed: int, method: str, moment: str) -> Sources:
        sources = read_sources(self.run.prototype_file(seed, method, moment))
        images = self.images(seed)
        if sources.valid.shape[0] != len(images.classes) or sources.image[sources.valid].max(initial=-1) >= len(images):
            raise InputError("the prototypes are of other data than the run names now: photos or classes have changed.")
        return sources

    # The pass over all images

    def statistics(self, seed: int, method: str, moment: str) -> Statistics | None:
        """What the pass found, or None while there is nothing."""
        if not self.run.weights_file(seed, method, moment).is_file():  # the training goes on still
            return None
        path = self._statistics_file(seed, method, moment)
        try:
            found = read_statistics(path, path.stat().st_mtime_ns)
        except FileNotFoundError:
            return None
        if found is not None and found.unreadable and (paths := image_paths(self.images(seed))) is not None:
            facts = zip(found.unreadable, found.unreadable_facts, strict=True)
            if any(file_facts(paths[image]) not in (before, NO_FILE) for image, before in facts):  # it may be mended
                path.unlink(missing_ok=True)
                return None
        return found

    def _statistics_file(self, seed: int, method: str, moment: str) -> Path:
        run = self.run
        made_of = (run.prototype_file(seed, method, moment), run.weights_file(seed, method, moment))
        fpr = method_config(method, run.config.fpr)
        settings = repr((fpr, run.config.data))
        return statistics_file(self.folder, seed, method, moment, made_of, settings)

    def counting(self, seed: int, method: str, moment: str, begin: bool) -> dict[str, Any]:
        """How far the pass is; with ``begin``, begin it unless it is done."""
        target = self._statistics_file(seed, method, moment)
        if target.is_file():
            return Job("done").told()

        def steps() -> Steps:
            from tag2mask.stages.exploration import Findings, look_at_all

            found: list[Findings] = []
            weights = "cam" if moment == "first" else method
            file = self.run.prototype_file(seed, method, moment)
            shape = read_sources(file).valid.shape
            yield 0, len(self.images(seed))
            paths = image_paths(self.images(seed))
            before = [file_facts(path) for path in paths] if paths is not None else []
            yield from look_at_all(lambda: self._network_of(seed), method, weights, file, found)
            facts = [before[image] for image in found[0].unreadable] if before else []
            arrays = {"unreadable_facts": np.array(facts, np.int64).reshape(-1, 2), **found[0].arrays(*shape)}
            save_arrays(target, arrays)

        return self._told(self.worker, target.name, steps, begin)

    def _told(self, worker: Worker, key: str, steps: Callable[[], Steps], begin: bool) -> dict[str, Any]:
        """How far work is, as the page gets it."""
        job = worker.job(key)
        if job is not None and job.state == "done":  # and yet its file is not there
            worker.forget(key)
            job = None
        if begin:
            job = worker.begin(key, steps)
        return {"state": "none"} if job is None else job.told()

    # The map of prototypes

    def plane(self, seed: int, method: str, kind: embedding.Kind) -> dict[str, Any]:
        """Prototypes of all epochs in the plane, or how far that is."""
        files = self.run.epoch_files(seed, method) or {1: self.run.prototype_file(seed, method, "last")}
        target = statistics_file(self.folder, seed, method, f"map-{kind}", tuple(files.values()), "")
        arrays = load_arrays(target)
        if arrays is not None:
            told, images = embedding.told(arrays), self.images(seed)
            lent = {row[-1] for row in told["about"]} - {embedding.NO_IMAGE}
            photos = {str(i): self._image(images, i) for i in lent if i < len(images)}
            return {"state": "done", **told, "photos": photos}
        fpr: FPRConfig = method_config(method, self.run.config.fpr)
        cosine = fpr.distance == "cosine"
        job = self._told(self.planes, target.name, lambda: embedding.embed(files, cosine, kind, target), begin=True)
        return {**job, "state": "running"} if job["state"] == "done" else job  # done just now: the next question has it

    # Maps of an image

    def _network_of(self, seed: int) -> Network:
        """The network of a seed; one is kept. For the worker's thread."""
        from tag2mask.stages.exploration import Network

        if self._network is None or self._network.setup.seed != seed:
            self._network = None
            self._network = Network(self.run.config, self.folder, seed)
        return self._network

    def _ask_maps(self, seed: int, image: int, method: str) -> ClassMaps:
        return self.worker.ask(lambda: self._network_of(seed).maps(image, method))

    def maps(self, seed: int, image: int, methods: list[str], c: int) -> dict[str, Any]:
        """Maps of a class in an image by some methods, and the probabilities of all classes."""
        images = self.images(seed)
        found = {method: self._maps(seed, image, method) for method in methods}
        return {
            **self._image(images, image),
            "methods": [self._told_maps(name, maps, [c]) for name, maps in found.items()],
            "blocked": (image, c) in self._shown_blocked(),
            "tagged": bool(images.labels[image, c]),
        }

    def maps_of_new(self, seed: int, content: bytes, methods: list[str]) -> dict[str, Any]:
        """Maps of all classes in a photo that is sent; it is not kept."""
        photo = uploaded(content)
        found = self.worker.ask(lambda: {m: self._network_of(seed).maps_of_new(photo, m) for m in methods})
        shown = base64.b64encode(jpeg(photo, NEW_LONGEST_SHOWN)).decode("ascii")
        every = list(range(len(self.images(seed).classes)))
        return {
            "photo": f"data:image/jpeg;base64,{shown}", "size": list(photo.size),
            "methods": [self._told_maps(name, maps, every) for name, maps in found.items()],
        }  # fmt: skip

    def _told_maps(self, method: str, maps: ClassMaps, classes: list[int]) -> dict[str, Any]:
        return {
            "method": method,
            "probabilities": [round(float(p), 4) for p in maps.probabilities],
            "maps": {str(c): {"peak": round(float(maps.peaks[c]), 4), **grid_of(maps.maps[c])} for c in classes},
        }

    # The block list

    def _blocked(self) -> Pairs:
        """The list of the run; before it has one, that which it was trained with."""
        path = self.folder / FILE
        before = Path(self.run.config.tags.blocked) if self.run.config.tags.blocked else None
        images = self.images(self.run.config.seeds[0])
        if path.is_file():
            return set(read_list(path, path.stat().st_mtime_ns, images))
        return set(read_list(before, before.stat().st_mtime_ns, images)) if before and before.is_file() else set()

    def _shown_blocked(self) -> Pairs:
        """The list for what is shown beside it; empty where its file is at fault."""
        try:
            return self._blocked()
        except InputError:
            return set()

    def blocked(self) -> dict[str, Any]:
        """The block list with the command that trains with it, or what is wrong with its file."""
        images = self.images(self.run.config.seeds[0])
        pairs, fault = [], ""
        try:
            pairs = sorted(self._blocked())
        except InputError as error:
            fault = str(error)
        command = [
            "tag2mask", "train", "--config", str(self.folder / "settings.yaml"), "--out", str(next_folder(self.folder)),
            "--tags.blocked", str(self.folder / FILE),
        ]  # fmt: skip
        names = images.classes.names
        return {
            "blocked": [{**self._image(images, i), "class": c, "name": names[c]} for i, c in pairs],
            "blocked_fault": fault,
            "file": str(self.folder / FILE),
            "command": shlex.join(command),
        }

    def block(self, image: int, c: int, blocked: bool) -> dict[str, Any]:
        """Put a pair on the list or take it off; the file is written at once."""
        if not fits(self.run.config):
            raise InputError(SEVERAL_SEEDS)
        with self._lock:
            pairs = self._blocked()
            (pairs.add if blocked else pairs.discard)((image, c))
            write_blocked(self.folder / FILE, pairs, self.images(self.run.config.seeds[0]))
            read_list.cache_clear()  # clocks of file systems may be coarse
        return self.blocked()


def chosen_images(images: TaggedImages, c: int | None, untagged: bool) -> npt.NDArray[np.int64]:
    """Numbers of the images of a class, of those without a tag, or of all, ascending."""
    if untagged:
        return np.flatnonzero(~images.labels.any(axis=1))
    return np.arange(len(images)) if c is None else np.flatnonzero(images.labels[:, c])


@lru_cache(4)
def read_statistics(path: Path, changed: int) -> Statistics | None:
    """Statistics of a file that was ``changed`` at a time; a damaged one is removed, and None."""
    arrays = load_arrays(path)
    return None if arrays is None else Statistics(arrays)


@lru_cache(4)
def read_list(path: Path, changed: int, images: TaggedImages) -> Pairs:
    """The block list of a file that was ``changed`` at a time."""
    return read_blocked(path, images)


def next_folder(run: Path) -> Path:
    """Where to train again: the first of RUN-2, RUN-3 ... that is not there."""
    stem = re.sub(r"-\d+$", "", run.name) or "run"
    return next(path for number in range(2, 10_000) if not (path := run.parent / f"{stem}-{number}").exists())
