from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tag2mask.checkpoints import load_prototypes, load_weights, save_prototypes, save_weights, write_tensors
from tag2mask.cli import main
from tag2mask.config import CooccurConfig, DataConfig, FPRConfig, HostConfig, OptimiserConfig, ViewsConfig
from tag2mask.data import TaggedImages, open_images
from tag2mask.engine import collect, fit, set_up_torch
from tag2mask.errors import InputError
from tag2mask.hosts.cam import CamHost
from tag2mask.hosts.inputs import PhotoInputs
from tag2mask.presets import PRESETS

HOST = replace(PRESETS["paper"].host, backbone="test_efficientnet", weights="none", freeze="blocks.3", dilate=True)
NO_TERMS = FPRConfig(region_weight=0.0, pixel_weight=0.0)
PHASE = OptimiserConfig(epochs=2, batch_size=4, learning_rate=2.0)


@pytest.fixture(scope="module")
def images() -> TaggedImages:
    set_up_torch(1, "cpu")
    return open_images(DataConfig(cooccur=CooccurConfig(images=12, size=64)))


def new_host(images: TaggedImages, config: HostConfig = HOST) -> CamHost:
    torch.manual_seed(0)
    return CamHost(config, len(images.classes))


def trained(
    images: TaggedImages, folder: Path, phase: OptimiserConfig = PHASE, fpr: FPRConfig = NO_TERMS,
    host: CamHost | None = None, resume: bool = False, seed: int = 0,
) -> CamHost:  # fmt: skip
    host = host or new_host(images)
    inputs = PhotoInputs(host, images, ViewsConfig(size=64), torch.device("cpu"))
    superclasses = images.classes.superclass_ids()
    fit(host, inputs, images.labels, phase, fpr, superclasses, seed, folder, lambda done, total, note="": None, resume)
    return host


def states_differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {k for k in one if not torch.equal(one[k], other[k])}


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_training_changes_the_trained_half_alone(images: TaggedImages, tmp_path: Path, kind: str) -> None:
    phase = OptimiserConfig(kind=kind, epochs=1, batch_size=4, learning_rate=0.1, backbone_rate=0.01)  # type: ignore[arg-type]
    before = {k: v.clone() for k, v in new_host(images).state_dict().items()}
    host = trained(images, tmp_path, phase)
    changed = states_differ(before, host.state_dict())
    assert "classifier.weight" in changed and any(k.startswith("trained_stages.") for k in changed)
    assert not any(k.startswith("frozen_stages.") for k in changed)
    assert not any("running" in k for k in changed), "the backbone's batch norms keep their statistics"


def test_training_lowers_the_loss(images: TaggedImages, tmp_path: Path) -> None:
    trained(images, tmp_path, OptimiserConfig(epochs=8, batch_size=4, learning_rate=0.2))
    losses = [json.loads(line)["classification"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.9 * losses[0]


def test_no_epoch_keeps_the_weights(images: TaggedImages, tmp_path: Path) -> None:
    host = trained(images, tmp_path, OptimiserConfig(epochs=0))
    assert not states_differ(new_host(images).state_dict(), host.state_dict())
    assert (tmp_path / "weights.safetensors").is_file()


def test_one_batch_where_there_are_fewer_images_than_a_batch(images: TaggedImages, tmp_path: Path) -> None:
    trained(images, tmp_path, OptimiserConfig(epochs=2, batch_size=64, learning_rate=0.1))
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_gradients_are_clipped_except_of_the_classifier(images: TaggedImages, tmp_path: Path) -> None:
    """With plain SGD and one step the change is the gradient; its norm is bounded, that of the classifier is not."""
    changes = []
    for number, clip in enumerate((0.0, 1e-3)):
        phase = OptimiserConfig(
            kind="sgd", epochs=1, batch_size=12, learning_rate=1.0, backbone_rate=1.0, momentum=0.0, weight_decay=0.0,
            clip_norm=clip,
        )  # fmt: skip
        before = {k: v.clone() for k, v in new_host(images).state_dict().items()}
        after = trained(images, tmp_path / str(number), phase).state_dict()
        moved = {k: (after[k] - before[k]).float() for k in before}
        backbone = torch.cat([v.flatten() for k, v in moved.items() if k.startswith("trained_stages.")])
        changes.append((backbone.norm().item(), moved["classifier.weight"]))
    assert changes[0][0] > 2e-3
    assert changes[1][0] == pytest.approx(1e-3, rel=0.01)
    torch.testing.assert_close(changes[0][1], changes[1][1])


def test_state_and_weights_come_back_as_they_were(images: TaggedImages, tmp_path: Path) -> None:
    host = trained(images, tmp_path)
    other = new_host(images)
    assert states_differ(host.state_dict(), other.state_dict())
    load_weights(tmp_path / "weights.safetensors", other)
    assert not states_differ(host.state_dict(), other.state_dict())
    assert not any(k.startswith("frozen_stages.") for k in load_file(tmp_path / "weights.safetensors"))


def cut_off_after(
    epochs: int, host: CamHost, images: TaggedImages, folder: Path, phase: OptimiserConfig, fpr: FPRConfig,
    resume: bool = False,
) -> list[int]:  # fmt: skip
    """A training of three steps an epoch that is cut off in the epoch after ``epochs``; what ``fit`` returns else."""

    def step(done: int, total: int, note: str = "") -> None:
        if done > 3 * epochs:
            raise KeyboardInterrupt

    inputs = PhotoInputs(host, images, ViewsConfig(size=64), torch.device("cpu"))
    return fit(host, inputs, images.labels, phase, fpr, None, 0, folder, step, resume)


@pytest.mark.parametrize("until", [2, 3])
def test_resumed_between_two_collections(images: TaggedImages, tmp_path: Path, until: int) -> None:
    """The prototypes of the epochs that are not repeated are read, not collected with later weights."""
    fpr = FPRConfig(collect_every=2, region_weight=0.1, feature_space="trained", pixel_weight=0)
    start = trained(images, tmp_path / "cam").state_dict()
    phase = OptimiserConfig(epochs=5, batch_size=4, learning_rate=2e-3)

    def run(folder: Path, resume: bool, cut_after: int = 99) -> tuple[CamHost, list[int]]:
        host = new_host(images)
        host.load_state_dict(start)
        return host, cut_off_after(cut_after, host, images, folder, phase, fpr, resume)

    whole, bare = run(tmp_path / "whole", False)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", False, cut_after=until)
    resumed, bare_when_resumed = run(tmp_path / "cut", True)
    assert bare_when_resumed == bare
    assert not states_differ(whole.state_dict(), resumed.state_dict())
    lines = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert lines[0] == lines[1]
    assert json.loads(lines[0].splitlines()[until])["region"] > 0, "the prototypes matter after the cut"


@pytest.mark.parametrize(("every", "until"), [(1, 2), (2, 2), (2, 3)])
def test_contexts_are_remembered_across_an_interruption(
    images: TaggedImages, tmp_path: Path, every: int, until: int
) -> None:
    """Cut off just before a collection or between two, also while the files of a later one are there already."""
    start = {k: v.clone() for k, v in side_host(images).state_dict().items()}
    start["classifier.weight"] = torch.randn(start["classifier.weight"].shape, generator=torch.Generator().manual_seed(0))
    phase = OptimiserConfig(epochs=6, batch_size=4, learning_rate=2e-2)

    def run(folder: Path, resume: bool, remember: int = 3, cut_after: int = 99) -> CamHost:
        fpr = FPRConfig(collect_every=every, negatives=12, remember=remember, pixel_weight=40)
        host = side_host(images)
        host.load_state_dict(start)
        cut_off_after(cut_after, host, images, folder, phase, fpr, resume)
        return host

    whole, forgetful = run(tmp_path / "whole", False), run(tmp_path / "forgetful", False, remember=0)
    assert states_differ(whole.state_dict(), forgetful.state_dict()), "what is remembered matters"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", False, cut_after=until)
    assert not states_differ(whole.state_dict(), run(tmp_path / "cut", True).state_dict())
    last = [load_prototypes(tmp_path / name / "prototypes.safetensors") for name in ("whole", "cut")]
    for name in ("trimmed", "context_age", "stopped"):
        assert torch.equal(*(getattr(prototypes, name) for prototypes in last))


@pytest.mark.parametrize(("freeze", "space", "still"), [("all", "levels", True), ("blocks.1", "levels", False), ("all", "trained", False)])
def test_features_that_move_are_not_remembered(
    images: TaggedImages, tmp_path: Path, freeze: str, space: str, still: bool
) -> None:
    host = new_host(images, replace(HOST, freeze=freeze, side=8, side_levels=("blocks.1", "blocks.3")))
    torch.nn.init.normal_(host.classifier.weight)
    fpr = FPRConfig(feature_space=space, remember=2)  # type: ignore[arg-type]
    trained(images, tmp_path, replace(PHASE, learning_rate=1e-3), fpr, host)
    assert (load_prototypes(tmp_path / "prototypes.safetensors").context is not None) == still


def test_a_training_without_what_it_remembers_from_says_so(images: TaggedImages, tmp_path: Path) -> None:
    trained(images, tmp_path, replace(PHASE, learning_rate=1e-3), FPRConfig(remember=3), side_host(images))
    (tmp_path / "prototypes" / "epoch002.safetensors").unlink()
    longer = replace(PHASE, learning_rate=1e-3, epochs=3)
    with pytest.raises(InputError, match=r"epoch002.safetensors is missing.*delete .* and train again"):
        trained(images, tmp_path, longer, FPRConfig(remember=3), side_host(images), resume=True)


def test_prototypes_survive_the_disk(images: TaggedImages, tmp_path: Path) -> None:
    host = trained(images, tmp_path)
    inputs = PhotoInputs(host, images, ViewsConfig(size=64), torch.device("cpu"))
    prototypes = collect(host, inputs, torch.tensor(images.labels).float(), FPRConfig(), None, 0)
    assert prototypes.positive_valid.any() and prototypes.negative_valid.any()
    save_prototypes(tmp_path / "p.safetensors", prototypes)
    loaded = load_prototypes(tmp_path / "p.safetensors")
    for name, value in vars(prototypes).items():
        again = getattr(loaded, name)
        assert torch.equal(again, value) if isinstance(value, torch.Tensor) else again == value


def test_prototypes_of_another_version_are_named(tmp_path: Path) -> None:
    path = tmp_path / "prototypes.safetensors"
    write_tensors(path, {"positive": torch.zeros(1), "few": torch.zeros(1)}, {"spread": "1.0"})
    with pytest.raises(InputError, match=r"prototypes.safetensors is of another version .*few.*; train again"):
        load_prototypes(path)


def side_host(images: TaggedImages) -> CamHost:
    """A frozen backbone with a side branch that does not add to the class maps yet."""
    return new_host(images, replace(HOST, freeze="all", side=8, side_levels=("blocks.1", "blocks.3")))


def test_prototypes_stand_still_under_a_frozen_backbone(images: TaggedImages) -> None:
    """Other weights of the side branch, the same class maps: the same regions of features that it has no part in."""
    host, targets = side_host(images), torch.tensor(images.labels).float()
    inputs = PhotoInputs(host, images, ViewsConfig(size=64), torch.device("cpu"))
    assert host.side is not None
    found = {}
    for space in ("levels", "trained"):
        fpr = FPRConfig(feature_space=space)  # type: ignore[arg-type]
        before = collect(host, inputs, targets, fpr, None, 0)
        for projection in host.side.projections.parameters():
            torch.nn.init.normal_(projection)
        found[space] = before, collect(host, inputs, targets, fpr, None, 0)
    assert found["levels"][0].negative_valid.any() and found["levels"][0].positive_valid.any()
    for name in ("positive", "negative", "negative_source"):
        assert torch.equal(*(getattr(prototypes, name) for prototypes in found["levels"])), name
    assert torch.equal(*(prototypes.negative_source for prototypes in found["trained"]))
    assert not torch.allclose(*(prototypes.negative for prototypes in found["trained"]))


@pytest.mark.parametrize("space", ["levels", "trained"])
def test_training_compares_the_features_that_were_collected(images: TaggedImages, tmp_path: Path, space: str) -> None:
    """Both spaces have prototypes of their own width, and the term is at work in both."""
    fpr = FPRConfig(feature_space=space, margin=1.5)  # type: ignore[arg-type]
    host = side_host(images)
    torch.nn.init.normal_(host.classifier.weight)
    trained(images, tmp_path, OptimiserConfig(epochs=1, batch_size=4, learning_rate=1e-3), fpr, host)
    assert host.side is not None
    levels = sum(projection.shape[1] for projection in host.side.projections.parameters())
    width = load_prototypes(tmp_path / "prototypes.safetensors").negative.shape[2]
    assert width == (levels if space == "levels" else 8)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["pixel"] > 0


def test_weights_that_do_not_fit(images: TaggedImages, tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", new_host(images))
    torch.manual_seed(0)
    other = CamHost(HOST, len(images.classes) + 1)
    with pytest.raises(InputError, match=r"w.safetensors does not fit.*'classifier.weight'"):
        load_weights(tmp_path / "w.safetensors", other)
    with pytest.raises(InputError, match="there are no weights at"):
        load_weights(tmp_path / "gone.safetensors", other)
    with pytest.raises(InputError, match="there are no prototypes at"):
        load_prototypes(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("content", [b"", b"x" * 100])
def test_damaged_files_are_named(images: TaggedImages, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.safetensors"
    path.write_bytes(content)
    readers: list[Callable[[], object]] = [
        lambda: load_weights(path, new_host(images)),
        lambda: load_prototypes(path),
        lambda: trained(images, tmp_path, resume=True),
    ]
    for read in readers:
        with pytest.raises(InputError, match="state.safetensors is damaged"):
            read()


def test_loss_that_is_no_number_ends_the_training(images: TaggedImages, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no longer a number in epoch \d+; lower the learning rate"):
        trained(images, tmp_path, OptimiserConfig(epochs=4, batch_size=4, learning_rate=1e30))
    assert not (tmp_path / "weights.safetensors").exists()


def test_device_that_is_not_there() -> None:
    for name in ("cuda:77", "quantum"):
        with pytest.raises(InputError, match=f"device '{name}'"):
            set_up_torch(0, name)


def test_weights_are_the_same_with_masks_without_and_with_ruined_ones(
    write_folder: Callable[..., Path], tiny: list[str], tmp_path: Path
) -> None:
    """No mask reaches training: not one bit depends on them."""
    weights: list[list[bytes]] = []
    ruined, methods = write_folder("ruined"), ["--methods", "continued,halo,fpr"]
    for path in (ruined / "masks").rglob("*.png"):
        number = int(path.stem[1:])
        if number % 2:
            path.write_bytes(b"ruined")
        else:
            Image.fromarray(np.full((5, 5), 77, np.uint8)).save(path)
    for root in (write_folder("with"), write_folder("without", masks=False), ruined):
        assert (root / "masks").exists() == (root.name != "without")
        out = tmp_path / f"run-{root.name}"
        assert main(["train", "--out", str(out), "--data.kind", "folder", "--data.root", str(root), *tiny, *methods]) == 0
        files = sorted(out.glob("seed0/*/weights.safetensors"))
        assert [file.parent.name for file in files] == ["cam", "continued", "fpr", "halo"]
        weights.append([file.read_bytes() for file in files])
    assert weights[0] == weights[1] == weights[2]
    assert len(set(weights[0])) == 4, "the methods differ, so their terms were at work"
