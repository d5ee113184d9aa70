"""`tag2mask segment`: a network learns from pseudo masks."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from tag2mask.checkpoints import read_tensors
from tag2mask.cli import main
from tag2mask.data.pseudo_masks import write_mask
from tag2mask.manifests import Manifest
from tag2mask.segment.build import build_segmenter
from tag2mask.stages.pipeline import read_settings
from tag2mask.stages.segment import load_segmenter
from tests.stages.photos import NAMES, REFINE, SEGMENT, changed, copied, png, times, train

HOME = "seed0/fpr/segmenter/crf"
DEEPLAB = [
    "--preset", "deeplab_v2", "--segment.encoder", "test_resnet", "--segment.weights", "none", "--segment.size", "65",
    "--segment.optimiser.batch_size", "4", "--segment.steps", "1", "--segment.crf", "",
]  # fmt: skip


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    """A run without any mask of the truth, with refined ones. Tests must not change it."""
    run = train(tmp_path_factory.mktemp("segment"), tiny, masks=False)
    assert main(["refine", str(run), "--with", "crf", *REFINE, "--quiet"]) == 0
    return run


@pytest.fixture
def run(refined: Path) -> Path:
    """A copy of it that a test may change; beside the photos."""
    return copied(refined, refined.parent / f"copy{len(list(refined.parent.glob('copy*')))}")


def segment(run: Path, *options: str, quiet: bool = True) -> int:
    return main(["segment", str(run), "--from", "crf", *options, *(["--quiet"] if quiet else [])])


def losses(run: Path, home: str = HOME) -> list[float]:
    return [json.loads(line)["total"] for line in (run / home / "metrics.jsonl").read_text().splitlines()]


def weights(run: Path, home: str = HOME) -> bytes:
    return (run / home / "weights.safetensors").read_bytes()


def facts(run: Path, home: str = HOME) -> dict[str, object]:
    return json.loads((run / home / "segmenter.json").read_text())


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([*map(str, arguments), "--quiet"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1
    return text


def test_it_learns_the_masks_and_says_what_it_started_from(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    options = ["--segment.optimiser.epochs", "12", "--segment.optimiser.learning_rate", "0.01"]
    assert segment(run, *SEGMENT, *options, quiet=False) == 0
    shown = capsys.readouterr()
    assert "initial weights random" in shown.err and f"segmenter {run / HOME}" in shown.out
    found = losses(run)
    assert len(found) == 12 and np.isfinite(found).all() and found[-1] < 0.7 * found[0]
    assert facts(run)["initial_weights"] == "random" and facts(run)["classes"] == list(NAMES)
    before = times(run)
    assert segment(run) == 0, "the settings of the run are those of before"
    assert not changed(before, run)
    assert read_settings(run).segment.optimiser.epochs == 12


@pytest.mark.parametrize(("refiner", "methods"), [("psa", []), ("seed", ["--methods", "cam"])])
def test_the_next_command_takes_what_this_one_has_made(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refiner: str, methods: list[str]
) -> None:
    """Each printed command is given as it is printed; without its options it would make IRN's masks of FPR's maps."""
    home = run / "seed0" / (methods[-1] if methods else "fpr")
    capsys.readouterr()
    assert main(["refine", str(run), "--with", refiner, *methods, *REFINE, "--quiet"]) == 0
    following = next_command(capsys).partition("   or")[0]
    assert main([*following.split(), *SEGMENT, "--quiet"]) == 0
    assert (home / "segmenter" / refiner / "weights.safetensors").is_file() and not (home / "irn").exists()
    photo = str(run.parent / "photos/images/p1.png")
    following = next_command(capsys).replace("PHOTOS", photo)
    assert f"--from {refiner}" in following and main([*following.split(), "--out", str(tmp_path / "new"), "--quiet"]) == 0
    assert (tmp_path / "new" / "masks" / "p1.png").is_file()


def next_command(capsys: pytest.CaptureFixture[str]) -> str:
    """The arguments of `tag2mask` after `Next:`."""
    return capsys.readouterr().out.partition("Next: tag2mask ")[2].partition("\n")[0]


def test_weights_are_a_function_of_the_seed(run: Path) -> None:
    other = copied(run, run.parent / f"{run.name}_again")
    torch.manual_seed(99)
    for each in (run, other):
        assert segment(each, *SEGMENT) == 0
    assert weights(run) == weights(other)
    networks = [load_segmenter(each / HOME, torch.device("cpu"))[0].state_dict() for each in (run, other)]
    torch.manual_seed(0)
    initial = build_segmenter(read_settings(run).segment, len(NAMES)).state_dict()
    for name, tensor in networks[0].items():
        assert torch.equal(tensor, networks[1][name]), "also stages that are frozen at random, which are not stored"
        assert not name.startswith("frozen_stages") or torch.equal(tensor, initial[name])
    shutil.rmtree(other / HOME)
    assert segment(other, *SEGMENT, "--segment.zoom", "1.5") == 0
    assert weights(run) != weights(other)


def test_weights_of_a_file_are_named_by_their_hash(run: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    path = tmp_path / "mine.safetensors"
    save_file(timm.create_model("test_efficientnet").state_dict(), path)
    assert segment(run, *SEGMENT, "--segment.weights", str(path)) == 0
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts(run)["initial_weights"] == f"file mine.safetensors, sha256 {digest}"
    network, _ = load_segmenter(run / HOME, torch.device("cpu"))
    assert network.config.weights == str(path)


@pytest.mark.parametrize(
    "options",
    [
        ["--segment.freeze", "blocks.2"],
        ["--segment.freeze", "none", "--segment.batch_norm", "trained"],
        ["--segment.view", "crop", "--segment.hsv_jitter", "10", "--segment.loss", "balanced"],
        ["--segment.view", "crop", "--segment.freeze", "none", "--segment.multi_scale_loss", "true"],
    ],
)
def test_views_and_freezing(run: Path, options: list[str]) -> None:
    assert segment(run, *SEGMENT, *options) == 0
    assert len(losses(run)) == 2 and np.isfinite(losses(run)).all()
    trained, _ = read_tensors(run / HOME / "state.safetensors")
    learning = {name.split(".")[1] for name in trained if name.startswith("host.")}
    assert ("trained_stages" in learning) == ("--segment.freeze" in options)


@pytest.mark.parametrize("view", ["crop", "square"])
def test_deeplab_v2_takes_a_step_by_its_own_recipe(run: Path, view: str) -> None:
    """Multi-scale loss, two parts of a batch, biases at twice the rate; options given with a preset take precedence."""
    assert segment(run, *DEEPLAB, "--segment.view", view) == 0
    used = read_settings(run).segment
    assert (used.network, used.encoder, used.view) == ("deeplab_v2", "test_resnet", view)
    assert used.multi_scale_loss and used.accumulate == 2 and used.bias_rate == 2 and used.loss == "balanced"
    assert len(losses(run)) == 1 and np.isfinite(losses(run)).all()
    network, _ = load_segmenter(run / HOME, torch.device("cpu"))
    assert network.stride == 8
    state, _ = read_tensors(run / HOME / "state.safetensors")
    assert any("trained_stages" in name for name in state) and not any("frozen_stages" in name for name in state)


def test_a_finished_segmenter_is_not_trained_over(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert segment(run, *SEGMENT) == 0
    first, before, settings = weights(run), times(run), (run / "settings.yaml").read_text()
    capsys.readouterr()
    assert segment(run, *SEGMENT, "--segment.optimiser.epochs", "3") == 2
    assert "trained with other settings; delete that folder" in capsys.readouterr().err
    assert weights(run) == first and (run / "settings.yaml").read_text() == settings
    assert all(name.startswith("settings.yaml") for name in changed(before, run))
    shutil.rmtree(run / HOME)
    assert segment(run, *SEGMENT, "--segment.optimiser.epochs", "3") == 0
    assert len(losses(run)) == 3 and weights(run) != first


def test_settings_of_prediction_leave_the_training_alone(run: Path) -> None:
    assert segment(run, *SEGMENT) == 0
    out = str(run / "mmseg")
    assert main(["export", str(run), "--to", "mmseg", "--masks", "segmenter:crf", "--out", out, "--quiet"]) == 0
    first = weights(run)
    masks = list((run / HOME / "masks").rglob("*.png"))
    assert masks
    assert segment(run, *SEGMENT, "--segment.crf", "irn", "--segment.flip", "false") == 0
    assert weights(run) == first and not list((run / HOME / "masks").rglob("*.png"))
    network, _ = load_segmenter(run / HOME, torch.device("cpu"))
    assert network.config.crf == "irn" and not network.config.flip


@pytest.mark.parametrize("option", [("--refine.background", "0.25"), ("--refine.irn.beta", "2"), ("--refine.final_crf", "false")])
def test_other_masks_are_noticed(run: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str]) -> None:
    """Masks that were made with other settings are others, even where their threshold is the same."""
    assert main(["refine", str(run), "--with", "irn", "--quiet"]) == 0
    assert main(["segment", str(run), *SEGMENT, "--quiet"]) == 0
    assert main(["refine", str(run), "--with", "irn", *option, "--quiet"]) == 0
    first = (run / "seed0/fpr/segmenter/irn/weights.safetensors").read_bytes()
    capsys.readouterr()
    assert main(["segment", str(run)]) == 0
    place = run / "set_aside/1/seed0/fpr/segmenter/irn"
    assert f"the masks have changed, so it is trained anew; before: {place}." in capsys.readouterr().err
    assert (place / "weights.safetensors").read_bytes() == first
    before = times(run)
    assert main(["segment", str(run), "--quiet"]) == 0
    assert not changed(before, run)


@pytest.mark.parametrize("threshold", ["0", "0.3"])
def test_from_plain_masks_that_are_not_there_yet(run: Path, threshold: str) -> None:
    for source in ("seed", "crf"):
        assert main(["refine", str(run), "--with", "crf", "--refine.threshold", threshold, "--quiet"]) == 0
        assert main(["segment", str(run), "--from", source, *SEGMENT, "--quiet"]) == 0
        assert len(losses(run, f"seed0/fpr/segmenter/{source}")) == 2
    assert (run / "seed0/fpr/masks/train").is_dir()


def test_unsure_pixels_teach_nothing(run: Path) -> None:
    """With masks of nothing but 255 the network stays as it was."""
    folder = run / "seed0/fpr/crf/masks/train"
    for path in folder.rglob("*.png"):
        Manifest(folder).add(path, write_mask(path, np.full_like(png(path), 255)))
    plain = ["--segment.optimiser.weight_decay", "0", "--segment.optimiser.epochs", "1", "--segment.freeze", "none"]
    assert segment(run, *SEGMENT, *plain) == 0
    assert losses(run) == [0]
    torch.manual_seed(0)
    initial = build_segmenter(read_settings(run).segment, len(NAMES)).state_dict()
    network, _ = load_segmenter(run / HOME, torch.device("cpu"))
    norms = ("running_mean", "running_var", "num_batches_tracked")  # the head's, which look at the photos alone
    assert all(torch.equal(v, initial[k]) for k, v in network.state_dict().items() if not k.endswith(norms))


def test_mistakes_are_one_clear_sentence(refined: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = times(refined)
    cases = {
        ("--preset", "deeplab"): "--preset 'deeplab' is unknown; expected one of small, deeplab_v2, deeplab_v1",
        ("--from", "irnn"): "there is no refinement 'irnn'; expected one of seed, crf, irn, psa",
        ("--methods", "halo"): "method 'halo' is not in this run; it has cam, fpr",
        ("--segment.size", "8"): "segment.size is 8; expected at least 32 pixels",
        ("--segment.rates", "3"): "segment.rates is (3,); expected 0 for small",
        ("--segment.accumulate", "0"): "segment.accumulate is 0; expected 1 or more",
        ("--segment.multi_scale_loss", "true"): "segment.freeze `none`",
        ("--segment.sise", "64"): "Did you mean --segment.size?",
    }
    for options, message in cases.items():
        assert message in error(capsys, "segment", refined, *options), options
    assert "there is no settings.yaml in" in error(capsys, "segment", tmp_path / "gone")
    assert times(refined) == before, "told before any work"


def test_an_encoder_that_is_not_to_be_had(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = error(capsys, "segment", run, "--from", "crf", *SEGMENT, "--segment.encoder", "test_resnett")
    assert "segment.encoder" in text and "Did you mean" in text
    text = error(capsys, "predict", run, run.parent / "photos")
    assert "has no segmenter of fpr" in text
