"""The processes that work on one run: the one file that knows Lightning Fabric and torch.distributed.

Everything else asks here who it is and what the others have. In a single process every function is trivial. All
processes must call the functions that say "all" in the same order; what only one of them decides goes through ``once``.

Only sums, counts, pools of a fixed size and small values cross processes, so their number changes no result.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch import distributed as dist

from tag2mask import progress
from tag2mask.atomic import told
from tag2mask.errors import InputError
from tag2mask.fpr.pools import PrototypePools
from tag2mask.shares import is_shared, shared

Value = TypeVar("Value")
LONGEST_WAIT = timedelta(hours=6)
"""For what one process does alone. One that has ended is noticed at once; this is for one that does nothing."""
STEP_WAIT = timedelta(minutes=30)
"""The same inside a training step, where NCCL between GPUs may not notice."""


class _State:
    """Who this process is."""

    fabric: Any = None
    group: Any = None
    """For values of the host, whatever device the tensors are on."""
    alone: bool = False


def world() -> int:
    """The number of processes; 1 inside ``once``."""
    return 1 if _State.fabric is None or _State.alone else int(_State.fabric.world_size)


def rank() -> int:
    """The number of this process, from 0."""
    return 0 if world() == 1 else int(_State.fabric.global_rank)


def local_rank() -> int:
    """The number of this process on its machine: which of its GPUs is its own."""
    return 0 if _State.fabric is None else int(_State.fabric.local_rank)


def local_world() -> int:
    """Processes on this machine, which share its cores."""
    return 1 if _State.fabric is None else int(_State.fabric.world_size) // int(_State.fabric._strategy.num_nodes)


@contextmanager
def joined() -> Iterator[None]:
    """Become one of the processes that torchrun, Slurm or ``tag2mask.launch`` have started.

    Raises:
        InputError: they do not find each other, or one has ended before its time.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it says who it is, in every process
    count = int(os.environ.get("WORLD_SIZE") or os.environ["SLURM_NTASKS"])
    own = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or count)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # The settings choose the device later; which GPU belongs to whom is `local_rank`, not the strategy's business.
    strategy = DDPStrategy(
        process_group_backend=backend, timeout=STEP_WAIT, find_unused_parameters=True, broadcast_buffers=False
    )
    _State.fabric = Fabric(accelerator="cpu", devices=own, num_nodes=count // own, strategy=strategy)
    try:
        _State.fabric.launch()
        _State.group = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
    except (RuntimeError, OSError) as error:
        _State.fabric = None
        raise InputError(
            f"the {count} processes did not find each other ({error}); run the same command again."
        ) from error
    progress.silence(rank() > 0)
    try:
        yield
        dist.barrier(_State.group)
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or any(sign in str(error) for sign in ("gloo", "NCCL", "closed by peer")):
            raise InputError(
                "a process that this one works with has ended. What was finished is kept: run the same command again, "
                "`train` with --resume."
            ) from error
        raise
    finally:
        progress.silence(False)
        _State.fabric = _State.group = None
        if dist.is_initialized():
            dist.destroy_process_group()


def mine(items: Iterable[Value]) -> Iterator[Value]:
    """This process's share: every ``world``-th item. Nobody's item is anybody else's, and none is there twice."""
    return islice(items, rank(), None, world())


def wait() -> None:
    """All: go on when everyone is here, and what they have written can be read."""
    if world() > 1:
        dist.barrier(_State.group)


def wait_for_all(step: progress.Step, count: int) -> None:
    """All: the same at the end of a piece of work on ``count`` images, whoever has done the last one."""
    if world() > 1:
        wait()
        step(count, count)


def once(make: Callable[[], Value]) -> Value:
    """All: the first process makes something, as if it were alone, and everyone has it; its mistakes are everyone's.

    Nothing is made before everyone is here. So what a process has read on its way, to decide whether to come, all have
    read before the first one may change it.
    """
    if world() == 1:
        return make()
    wait()
    found: list[Any] = [None, None]
    failure: BaseException | None = None
    if rank() == 0:
        _State.alone = True
        try:
            found[0] = make()
        except Exception as error:
            failure, found[1] = error, told(error) if isinstance(error, OSError) else str(error)
        finally:
            _State.alone = False
    dist.broadcast_object_list(found, src=0, group=_State.group)
    if failure is not None:
        raise failure
    if found[1] is not None:
        raise InputError(found[1])
    return found[0]


def total(values: np.ndarray) -> np.ndarray:
    """All: the sum of an array over the processes; exact for integers, and where all but one hold 0."""
    if world() == 1:
        return values
    summed = torch.from_numpy(np.ascontiguousarray(values)).clone()
    dist.all_reduce(summed, group=_State.group)
    return summed.numpy()


def streamed(parts: Iterable[Value], take: Callable[[Value], None]) -> None:
    """All: the first process takes in everyone's parts, one after the other; it never holds more than one of them."""
    for sender in range(1, world()):
        if rank() == sender:
            for part in parts:
                dist.send_object_list([part], dst=0, group=_State.group)
            dist.send_object_list([None], dst=0, group=_State.group)
        elif rank() == 0:
            while True:
                received: list[Any] = [None]
                dist.recv_object_list(received, src=sender, group=_State.group)
                if received[0] is None:
                    break
                take(received[0])


def largest(value: int) -> int:
    """All: the largest of their numbers."""
    if world() == 1:
        return value
    number = torch.tensor(value)
    dist.all_reduce(number, op=dist.ReduceOp.MAX, group=_State.group)
    return int(number)


def average(number: Tensor) -> Tensor:
    """All: the mean of a scalar over the processes, without gradient (``tag2mask.shares``)."""
    summed = number.detach().double()
    dist.all_reduce(summed)
    summed /= world()
    return summed.to(number.dtype) if number.is_floating_point() else summed


def merged(own: PrototypePools, empty: Callable[[], PrototypePools]) -> None:
    """All: the first process's own takes in everyone's, in pairs, so that none ever holds more than two.

    ``empty``: makes a place to receive into, with tensors of the same shapes.
    """
    distance = 1
    while distance < world():
        if rank() % (2 * distance) == distance:
            for tensor in own.tensors():
                dist.send(as_bytes(tensor.cpu()), rank() - distance, group=_State.group)
        elif rank() % (2 * distance) == 0 and rank() + distance < world():
            other = empty()
            for tensor in other.tensors():
                received = torch.empty_like(as_bytes(tensor.cpu()))
                dist.recv(received, rank() + distance, group=_State.group)
                tensor.copy_(received.view(tensor.dtype).view(tensor.shape))
            own.merge(other)
        distance *= 2


def as_bytes(tensor: Tensor) -> Tensor:
    """A tensor's memory as (B,) uint8, as not every dtype can be sent."""
    return tensor.contiguous().flatten().view(torch.uint8)


class _Learner(nn.Module):
    """What DistributedDataParallel wraps: it wants one forward that all parameters are used in."""

    def __init__(self, learning: nn.Module) -> None:
        super().__init__()
        self.learning = learning

    def forward(self, losses: Callable[[np.ndarray], Any], batch: np.ndarray) -> Any:
        return losses(batch)


class Learning:
    """A module that all processes train: each computes losses of its share, all step by the mean of their gradients.

    Its batch norms use the statistics of all shares; dropout draws anew in each. In one process nothing happens.
    """

    def __init__(self, module: nn.Module) -> None:
        self._wrapped: Any = None
        if world() > 1:
            for inner in module.modules():
                inner.__class__ = WHOLE.get(type(inner), type(inner))  # the same weights under the same names
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers has a new name in new versions alone
                self._wrapped = _State.fabric.setup_module(_Learner(module), move_to_device=False)

    def losses(self, losses: Callable[[np.ndarray], Any], batch: np.ndarray) -> Any:
        """A named tuple of scalars for this process's share of a batch; means in them are over the whole batch."""
        if self._wrapped is None:
            return losses(batch)
        with shared(average):
            return self._wrapped(losses, batch)

    def last_part(self, last: bool) -> Any:
        """Around both passes of one part of a batch: gradients cross processes with the last part alone."""
        return nullcontext() if self._wrapped is None else _State.fabric.no_backward_sync(self._wrapped, not last)


class _Sum(torch.autograd.Function):
    """The sum over the processes; the loss of each depends on all that is summed, so its gradient is summed, too."""

    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:
        summed = own.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].clone()
        dist.all_reduce(summed)
        return summed


class WholeBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the shares of all processes. PyTorch's own is for GPUs alone; this one runs where gloo does."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, D, H, W), of which every process has other images, perhaps another number of them -> the same shape."""
        if not (self.training and is_shared()):
            return super().forward(input)
        return whole_batch_norm(self, input)


class WholeBatchNormAct2d(BatchNormAct2d):
    """timm's batch norm with the activation behind it, likewise."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and is_shared()):
            return super().forward(x)
        return self.act(self.drop(whole_batch_norm(self, x)))


def whole_batch_norm(norm: nn.BatchNorm2d, images: Tensor) -> Tensor:
    """All: images (N, D, H, W) by mean and variance over the shares of all processes; running statistics follow."""
    values = images.float()
    count = torch.tensor(float(values.numel() // values.shape[1]), device=values.device)
    dist.all_reduce(count)
    mean = _Sum.apply(values.sum(dim=(0, 2, 3))) / count  # (D,)
    centred = values - mean[:, None, None]
    variance = _Sum.apply(centred.square().sum(dim=(0, 2, 3))) / count  # (D,)
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        with torch.no_grad():
            norm.num_batches_tracked += 1
            share = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)
    result = centred * (variance + norm.eps).rsqrt()[:, None, None]
    if norm.affine:
        result = result * norm.weight[:, None, None] + norm.bias[:, None, None]
    return result.to(images.dtype)


WHOLE: dict[type, type] = {nn.BatchNorm2d: WholeBatchNorm2d, BatchNormAct2d: WholeBatchNormAct2d}
"""What takes the place of which batch norm."""
