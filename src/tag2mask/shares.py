"""Means over a batch that several processes share.

Each process sees its share of a batch, and the mean of the processes' gradients is what is learnt from. A mean over
pairs or pixels, of which the shares hold different numbers, must then divide by the number that a share holds on
average: the mean of such quotients over the processes is the mean over the whole batch. In one process that is the
plain mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Average = Callable[[Tensor], Tensor]
"""A scalar of each process -> its mean over the processes, a floating number."""
_average: list[Average] = []


@contextmanager
def shared(average: Average) -> Iterator[None]:
    """Inside, ``whole`` asks all processes; all of them must compute the same losses."""
    _average.append(average)
    try:
        yield
    finally:
        _average.pop()


def is_shared() -> bool:
    """Whether what is computed now is a share of a batch."""
    return bool(_average)


def whole(number: Tensor) -> Tensor:
    """A number that is counted or summed over a batch, without gradient: what its shares hold on average."""
    return _average[-1](number.detach()) if _average else number.detach()


def divided(total: Tensor, count: Tensor) -> Tensor:
    """A sum over a share of a batch by the count of what is summed; 0 where no share holds anything."""
    return total / whole(count).to(total.dtype).clamp(min=torch.finfo(total.dtype).tiny)


def mean(values: Tensor) -> Tensor:
    """The mean of values of any shape over the whole batch, a scalar; 0 where there are none."""
    return divided(values.sum(), values.new_tensor(values.numel()))
