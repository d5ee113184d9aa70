"""Training against labels of pixels, on a network of one convolution."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tag2mask.checkpoints import read_tensors
from tag2mask.config import OptimiserConfig
from tag2mask.data.order import epoch_batches
from tag2mask.engine import fit_labelled, rate_factor
from tag2mask.errors import InputError

IMAGES = 10


class Loss(NamedTuple):
    total: Tensor
    doubled: Tensor


class Pixels:
    """Stands where ``LabelledInputs`` does: levels and labels that differ by image and epoch."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.levels = torch.randn(IMAGES, 3, 6, 6, generator=random)
        self.labels = torch.randint(0, 2, (IMAGES, 6, 6), generator=random).to(torch.uint8)

    def __len__(self) -> int:
        return IMAGES

    def training(self, indices: np.ndarray, seed: int, epoch: int) -> tuple[list[Tensor], Tensor]:
        numbers = torch.from_numpy(indices)
        return [self.levels[numbers] + 0.1 * epoch], self.labels[numbers]


class Network(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.drop, self.convolution = nn.Dropout(dropout), nn.Conv2d(3, 2, 3, padding=1)

    def loss(self, levels: list[Tensor], labels: Tensor) -> Loss:
        total = functional.cross_entropy(self.convolution(self.drop(levels[0])), labels.long())
        return Loss(total, 2 * total.detach())


Train = Callable[..., Network]


def settings(**others: Any) -> OptimiserConfig:
    return OptimiserConfig(**{"epochs": 3, "batch_size": 4, "learning_rate": 0.1, "clip_norm": 0.0, "kind": "sgd", **others})


def train(folder: Path, network: Network, config: OptimiserConfig, accumulate: int = 1, step: Any = None, decay: float = 1e-2) -> Network:
    groups = [(0.1, decay, [network.convolution.weight]), (0.02, 0.0, [network.convolution.bias])]  # type: ignore[list-item]
    step = step or (lambda done, total, note="": None)
    fit_labelled(network, Pixels(), network.loss, groups, config, 5, folder, step, True, accumulate)  # type: ignore[arg-type]
    return network


def weights(network: Network) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize(("batch", "parts"), [(4, 2), (5, 2), (5, 5), (10, 3), (2, 4)])
def test_parts_of_a_batch_add_up_to_it(tmp_path: Path, kind: str, batch: int, parts: int) -> None:
    """Also where they are not of one size, and where there are fewer images than parts; so do the losses written."""
    config = settings(kind=kind, batch_size=batch, clip_norm=0.5)
    whole = train(tmp_path / "whole", Network(), config)
    added = train(tmp_path / "parts", Network(), config, accumulate=parts)
    assert (weights(whole) - weights(added)).abs().max() < (1e-6 if kind == "sgd" else 1e-5)
    one, other = ([json.loads(line) for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()] for n in ("whole", "parts"))
    for first, second in zip(one, other, strict=True):
        assert first == pytest.approx(second, abs=2e-6)


def test_a_step_is_that_of_the_textbook(tmp_path: Path) -> None:
    """SGD with momentum, a rate and a weight decay for each group, both under the poly schedule."""
    config = settings(momentum=0.9)
    found = train(tmp_path, Network(), config)
    network, pixels, steps = Network(), Pixels(), 3 * (IMAGES // 4)
    velocity: dict[str, Tensor] = {}
    done = 0
    for epoch in range(3):
        for batch in epoch_batches(IMAGES, 4, 5, epoch):
            network.zero_grad()
            network.loss(*pixels.training(batch, 5, epoch)).total.backward()
            with torch.no_grad():
                for name, rate, decay in (("weight", 0.1, 1e-2), ("bias", 0.02, 0.0)):
                    parameter = getattr(network.convolution, name)
                    gradient = parameter.grad + decay * parameter
                    velocity[name] = 0.9 * velocity[name] + gradient if name in velocity else gradient
                    parameter -= rate * rate_factor(config, done, steps) * velocity[name]
            done += 1
    assert torch.allclose(weights(found), weights(network), atol=1e-6)


def test_what_is_written_and_told(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    network = train(tmp_path, Network(), settings(epochs=4), step=lambda done, total, note="": told.append((done, total, note)))
    assert [(done, total) for done, total, _ in told] == [(n, 8) for n in range(1, 9)]
    assert all(note.startswith("loss 0.") or note.startswith("loss 1.") for _, _, note in told)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert all(line["doubled"] == pytest.approx(2 * line["total"], abs=2e-6) for line in lines)
    tensors, _ = read_tensors(tmp_path / "weights.safetensors")
    assert torch.equal(tensors["convolution.weight"], network.convolution.weight)
    assert lines[-1]["total"] < lines[0]["total"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_cut_off_at_any_step_it_ends_with_the_same_bits(tmp_path: Path, kind: str, dropout: float) -> None:
    """Also with dropout, whose draws belong to the epoch."""
    config = settings(kind=kind)
    expected = train(tmp_path / "whole", Network(dropout), config)
    for fatal in range(1, 7):

        def step(done: int, total: int, note: str = "", fatal: int = fatal) -> None:
            if done == fatal:
                raise Killed

        folder = tmp_path / str(fatal)
        with pytest.raises(Killed):
            train(folder, Network(dropout), config, step=step)
        torch.manual_seed(99)
        assert torch.equal(weights(train(folder, Network(dropout), config)), weights(expected)), fatal
        for name in ("weights.safetensors", "metrics.jsonl"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_dropout_differs_from_epoch_to_epoch(tmp_path: Path) -> None:
    seen: list[Tensor] = []
    network = Network(0.5)
    network.drop.register_forward_hook(lambda module, given, result: seen.append(result == 0))
    train(tmp_path, network, settings(batch_size=IMAGES))
    assert len(seen) == 3 and not any(torch.equal(seen[0], other) for other in seen[1:])


def test_gradients_are_clipped_over_all_groups(tmp_path: Path) -> None:
    config = settings(epochs=1, batch_size=IMAGES, clip_norm=0.01, momentum=0.0)
    before = weights(Network())
    after = weights(train(tmp_path, Network(), config, decay=0.0))
    rates = torch.cat([torch.full((54,), 0.1), torch.full((2,), 0.02)])
    assert ((after - before) / rates).norm() == pytest.approx(0.01, rel=1e-3)


def test_a_loss_that_is_no_number_is_told(tmp_path: Path) -> None:
    network = Network()
    with torch.no_grad():
        network.convolution.bias.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(InputError, match="the loss is no longer a number in epoch 1"):
        train(tmp_path, network, settings())
    assert not (tmp_path / "weights.safetensors").exists()
