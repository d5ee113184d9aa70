"""The tags that training sees: those of the data set; suspects and what a user has blocked count as unknown.

A missing tag puts a true object among the negatives of its class, where it ranks first: it is what the classifier is
surest of. Unknown pairs of image and class are in no pool and in no classification loss; what ``fpr.suspects`` drops is
in no pool.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tag2mask import ranks
from tag2mask.config import FPRConfig, RunConfig, TagsConfig
from tag2mask.errors import InputError
from tag2mask.manifests import write_result
from tag2mask.noise import fit_classifiers, suspicion
from tag2mask.noise.folds import Probabilities
from tag2mask.progress import Reporter, Step
from tag2mask.runs import read_json, seed_folder
from tag2mask.stages.blocked import blocked_pairs
from tag2mask.stages.network import SeedSetup
from tag2mask.stages.origin import set_aside

UNKNOWN = -1
TAGS = "tags.json"
SUSPECTS = "suspects.json"
LEARNT_FROM = 10_000
"""Photos that the classifiers of tags learn from, at most: all, or a random sample, which has judged itself out of fold
and judges the others. Their features are in memory, those of the others are not."""

Tags = npt.NDArray[np.bool_]
TrainingTags = npt.NDArray[np.int8]
Features = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]


def training_tags(
    config: RunConfig, setup: SeedSetup, run: Path, report: Reporter, resume: bool = False
) -> TrainingTags:
    """The tags of a seed, (N, C): 1 tagged, 0 not tagged, -1 unknown. Written to ``tags.json``, read from there later.

    ``resume``: where the data set's tags are others by now, they are written anew; training follows.

    To be called before the host learns anything: the features that find suspects must not have seen the tags.
    """
    path = seed_folder(run, setup.seed) / TAGS
    if ranks.once(lambda: not tags_stand(setup, run, path, report, resume)):
        ranks.once(lambda: write_training_tags(config, setup, run, path, report))
    return read_training_tags(run, setup)


def tags_stand(setup: SeedSetup, run: Path, path: Path, report: Reporter, resume: bool) -> bool:
    """Whether there are tags already; with ``resume``, those of other tags of the data set are set aside."""
    if resume and path.is_file() and read_json(path, "tags").get("of") != fingerprint(setup):
        place = set_aside(run, path)
        report.say(f"{path}: the tags or photos of the data set are others, so it is made anew; before: {place}.")
    return path.is_file()


def write_training_tags(config: RunConfig, setup: SeedSetup, run: Path, path: Path, report: Reporter) -> None:
    """What of the given tags training does not learn from, and what was changed on purpose, and why."""
    blocked = blocked_pairs(config, setup.images)
    given = with_errors(setup.images.labels, config.tags, setup.seed)
    unknown = np.zeros_like(given)
    if config.tags.suspects != "keep":
        with report.task(f"seed {setup.seed}: suspected tags") as step:
            probabilities = tag_probabilities(setup, given, step)
        unknown = suspicion(probabilities, given).flagged
        if config.tags.suspects == "missing":
            unknown &= ~given
    suspected = int(unknown.sum())
    unknown |= blocked
    ids, names = setup.images.ids, setup.images.classes.names

    def listed(pairs: Tags) -> list[tuple[str, str]]:
        return [(ids[image], names[c]) for image, c in np.argwhere(pairs).tolist()]

    changed = given ^ setup.images.labels
    write_result(
        path,
        {
            "of": fingerprint(setup),
            "unknown, not tagged": listed(unknown & ~given), "unknown, tagged": listed(unknown & given),
            "removed": listed(changed & ~given), "added": listed(changed & given),
        },
    )  # fmt: skip
    if suspected:
        pairs = "pair of photo and class looks" if suspected == 1 else "pairs of photo and class look"
        report.say(f"seed {setup.seed}: {suspected} {pairs} mistagged and will not be learnt from: {path}.")
    if blocked.any():
        count = int(blocked.sum())
        pairs = "pair of photo and class is" if count == 1 else "pairs of photo and class are"
        report.say(f"seed {setup.seed}: {count} {pairs} blocked and will not be learnt from: {path}.")


def read_training_tags(run: Path, setup: SeedSetup) -> TrainingTags:
    """What ``training_tags`` wrote; the tags of the data set where it wrote nothing."""
    return stored_tags(run, setup, {"unknown, not tagged": UNKNOWN, "unknown, tagged": UNKNOWN})


def stored_tags(run: Path, setup: SeedSetup, unknown: dict[str, int]) -> TrainingTags:
    """The same with other values for what is ``unknown``, by whether it was tagged."""
    tags = setup.images.labels.astype(np.int8)
    path = seed_folder(run, setup.seed) / TAGS
    if path.is_file():
        stored = read_json(path, "tags")
        if stored.get("of") != fingerprint(setup):
            raise InputError(f"{path} was made of other tags than the data set has now; train again with --resume.")
        for key, value in {"removed": 0, "added": 1, **unknown}.items():
            set_pairs(tags, setup, stored[key], value)
    return tags


def set_pairs(tags: TrainingTags, setup: SeedSetup, pairs: list[list[str]], value: int) -> None:
    """Put a value where ``pairs`` of image and class name, as a file lists them, say."""
    row = {name: number for number, name in enumerate(setup.images.ids)}
    column = {name: number for number, name in enumerate(setup.images.classes.names)}
    for image, name in pairs:
        tags[row[image], column[name]] = value


def find_suspects(setup: SeedSetup, tags: TrainingTags, run: Path, report: Reporter) -> None:
    """Write to ``suspects.json`` which pairs of the training tags (N, C) look as if a tag were missing, unless it is
    there, of the same tags, photos and backbone.

    To be called before the host learns anything, as ``training_tags``.
    """
    path = seed_folder(run, setup.seed) / SUSPECTS
    made_of = {"tags": hash_of_tags(setup, tags), "photos": setup.photos, "backbone": setup.backbone}
    if ranks.once(lambda: not suspects_stand(path, made_of, report)):
        ranks.once(lambda: write_suspects(setup, tags, run, path, made_of, report))


def suspects_stand(path: Path, made_of: dict[str, str], report: Reporter) -> bool:
    """Whether suspects of the same are there; what is damaged is not, as nobody's work is lost with it."""
    if not path.is_file():
        return False
    try:
        known: bool = read_json(path, "suspects").get("of") == made_of
    except InputError:
        report.say(f"{path} is damaged: photos that may lack a tag are looked for again.")
        return False
    return known


def write_suspects(
    setup: SeedSetup, tags: TrainingTags, run: Path, path: Path, made_of: dict[str, str], report: Reporter
) -> None:
    """The pairs that the rule of the audit flags as missing; what counts as unknown is judged by its tag."""
    given = stored_tags(run, setup, {"unknown, not tagged": 0, "unknown, tagged": 1}) > 0
    with report.task(f"seed {setup.seed}: photos that may lack a tag") as step:
        probabilities = tag_probabilities(setup, given, step)
    pairs = np.argwhere(suspicion(probabilities, given).flagged & (tags == 0)).tolist()
    ids, names = setup.images.ids, setup.images.classes.names
    write_result(path, {"of": made_of, "no negatives": [(ids[image], names[c]) for image, c in pairs]})
    if pairs:
        what = "pair of photo and class looks as if its tag were missing: it lends"
        if len(pairs) > 1:
            what = "pairs of photo and class look as if their tags were missing: they lend"
        report.say(f"seed {setup.seed}: {len(pairs)} {what} no negatives (fpr.suspects): {path}.")


def drops_suspects(config: TagsConfig, settings: FPRConfig) -> bool:
    """Whether suspects are in no pool, but in the classification; where ``tags.suspects`` leaves them out of all
    learning, they are in no pool either, and nothing is looked for twice.
    """
    return settings.suspects == "drop" and config.suspects == "keep"


def tags_of_pools(
    config: TagsConfig, setup: SeedSetup, tags: TrainingTags, settings: FPRConfig, run: Path, report: Reporter
) -> TrainingTags:
    """The tags (N, C) as prototypes are collected with them: what ``fpr.suspects`` drops counts as unknown.

    It is in no pool, and it counts as there wherever the collection asks what else a photo shows. Where no suspects
    were looked for, as no method of the run has prototypes or the run is older than that, a warning says so.

    Raises:
        InputError: ``suspects.json`` is of other tags.
    """
    if not drops_suspects(config, settings):
        return tags
    path = seed_folder(run, setup.seed) / SUSPECTS
    if not path.is_file():
        report.warn(f"there is no {path}: negatives are collected as if no tag were suspected to be missing.")
        return tags
    stored = read_json(path, "suspects")
    if stored.get("of", {}).get("tags") != hash_of_tags(setup, tags):
        raise InputError(f"{path} was made of other tags than the run trains with; train again with --resume.")
    result = tags.copy()
    set_pairs(result, setup, stored["no negatives"], UNKNOWN)
    return result


def hash_of_tags(setup: SeedSetup, tags: TrainingTags) -> str:
    """Hash (16 digits) of the ids, the classes, the tags of the data set, and those that training sees."""
    return hashlib.sha256(fingerprint(setup).encode() + tags.tobytes()).hexdigest()[:16]


def fingerprint(setup: SeedSetup) -> str:
    """Hash of the ids, the classes and the tags."""
    images = setup.images
    content = json.dumps([images.ids, images.classes.names]).encode() + np.packbits(images.labels).tobytes()
    return hashlib.sha256(content).hexdigest()


def with_errors(tags: Tags, config: TagsConfig, seed: int) -> Tags:
    """Tags (N, C) less a random share of them, plus a random share of the absent pairs."""
    random = np.random.default_rng((config.seed, seed))
    result = tags.copy()
    for present, share in ((True, config.remove), (False, config.add)):
        pairs = np.argwhere(tags == present)
        chosen = pairs[random.permutation(len(pairs))[: round(share * len(pairs))]]
        result[chosen[:, 0], chosen[:, 1]] = not present
    return result


def tag_probabilities(setup: SeedSetup, tags: Tags, step: Step) -> Probabilities:
    """What classifiers that did not see an image's tags (N, C) think of it, (N, C): ``fit_classifiers``."""
    number = len(setup.images)
    order = np.random.default_rng(setup.seed).permutation(number)
    sample, others = np.sort(order[:LEARNT_FROM]), np.sort(order[LEARNT_FROM:])
    result = np.empty(tags.shape)
    classifiers = fit_classifiers(pooled_features(setup, step, sample), tags[sample], seed=setup.seed)
    result[sample] = classifiers.probabilities
    for batch, features in batches_of_features(setup, others):
        result[batch] = classifiers.of(features)
        step(len(sample) + int(np.searchsorted(others, batch[-1])) + 1, number)
    return result


def pooled_features(setup: SeedSetup, step: Step, numbers: Numbers | None = None) -> Features:
    """Mean and maximum over each picture of the backbone's levels, (N, D), before any weights of the run are loaded.

    The tags must not have trained them: a network that has learnt a missing tag by heart would not suspect it.

    Args:
        numbers: (N,) of the images, ascending; all if None.
    """
    rows = []
    done = 0
    for batch, features in batches_of_features(setup, numbers):
        rows.append(features)
        done += len(batch)
        step(done, len(setup.images))
    return np.concatenate(rows)


@torch.no_grad()
def batches_of_features(setup: SeedSetup, numbers: Numbers | None) -> Iterator[tuple[Numbers, Features]]:
    """The same, batch by batch: numbers (B,) and features (B, D)."""
    setup.host.eval()
    for batch in setup.inputs.plain_batches(32, numbers):
        levels = setup.host.levels(setup.inputs.plain(batch)).values()
        both = [part for level in levels for part in (level.mean((2, 3)), level.amax((2, 3)))]
        yield batch, torch.cat(both, dim=1).cpu().numpy()
