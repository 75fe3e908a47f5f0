"""Several processes on one run, by torch.distributed: gloo on the CPU, nccl between GPUs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from metakd.distributed.group import Group
from metakd.errors import RunError, UserError
from metakd.runs.interrupts import Interrupted, Stop

__all__ = ["PeerError", "Processes"]

Value = TypeVar("Value")


class PeerError(RunError):
    """Another process of the run has ended or cannot be reached, so this one cannot go on."""

    def __init__(self, rank: int, size: int, reason: object) -> None:
        words = " ".join(str(reason).split())
        super().__init__(
            f"process {rank} of {size}: another process of this run ended or cannot be reached "
            f"({words[:160]}); what it said stands above, and resume=RUN goes on"
        )


class Processes(Group):
    """The processes of an initialised process group.

    Signals do not end a process wherever it is, because the others would wait for it: it is noted,
    goes along with the next exchange, and all end at the same place.

    Args:
        device: where this process computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device = device
        # Objects and waiting: nccl would keep a GPU busy while it waits.
        self._control: Any = dist.new_group(backend="gloo") if device.type == "cuda" else None
        self._stop: Stop | None = None
        self._ending = False

    # --- agreement

    def together(self, action: Callable[[], Value]) -> Value:
        """See `Group`; whoever failed says why, once, and all end with the same status."""
        value: Value | None = None
        problem: BaseException | None = None
        try:
            value = action()
        except (Exception, KeyboardInterrupt) as error:
            problem = error
        said = self._exchange(_outcome(problem))
        found = [(rank, status, line) for rank, (status, line) in enumerate(said) if status]
        if not found:
            return value  # type: ignore[return-value]
        first, status, line = found[0]
        if problem is not None and self.rank == first:
            raise problem
        if problem is not None and line != _outcome(problem)[1]:
            print(f"metakd: process {self.rank}: {problem}", file=sys.stderr)
        raise SystemExit(status)

    def first(self, action: Callable[[], Value]) -> Value:
        """See `Group`; the others wait. While it runs, process 0 can be interrupted at once."""
        message: list[Any] = [0, None]
        problem: BaseException | None = None
        if self.rank == 0:
            try:
                with self._released():
                    message[1] = action()
            except (Exception, KeyboardInterrupt) as error:
                problem, message = error, [_outcome(error)[0], None]
        with reached():
            dist.broadcast_object_list(message, src=0, group=self._control, device=_CPU)
        if problem is not None:
            raise problem
        if message[0] == _INTERRUPTED:
            raise Interrupted("SIGTERM")
        if message[0]:
            raise SystemExit(message[0])
        return message[1]

    def first_only(self, action: Callable[[], Value]) -> Value | None:
        """See `Group`."""
        kept: list[Value] = []
        self.first(lambda: kept.append(action()))
        return kept[0] if kept else None

    def gather(self, value: Value) -> list[Value]:
        """See `Group`; ends here if any process was asked to end."""
        found = self._exchange((value, self._asked()))
        self._ending = self._ending or any(asked for _, asked in found)
        self.check()
        return [v for v, _ in found]

    def _exchange(self, value: Value) -> list[Value]:
        found: list[Any] = [None] * self.size
        with reached():
            dist.all_gather_object(found, value, group=self._control)
        return found

    # --- numbers

    def average(self, tensors: Sequence[Tensor], weight: float) -> None:
        """See `Group`; one exchange for all tensors of a type, the wish to end along with them."""
        asked = torch.tensor([float(self._asked())], device=self.device)
        kinds = dict.fromkeys([asked.dtype, *(t.dtype for t in tensors)])
        for kind in kinds:
            same = [t for t in tensors if t.dtype == kind]
            flat = torch.cat([t.detach().flatten().to(self.device) for t in same] or [asked[:0]])
            flat = flat * weight
            if kind == asked.dtype:
                flat = torch.cat([flat, asked])
            with reached():
                dist.all_reduce(flat)
            if kind == asked.dtype:
                self._ending = self._ending or bool(flat[-1] > 0)
            pieces = flat.split([t.numel() for t in same] + [flat.numel() - _count(same)])
            for tensor, piece in zip(same, pieces, strict=False):
                tensor.copy_(piece.view_as(tensor))

    def mean(self, values: Mapping[str, float], weight: float) -> dict[str, float]:
        """See `Group`; the names are the same in all processes."""
        if not values:
            return {}
        numbers = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        self.average([numbers], weight)
        return dict(zip(values, numbers.tolist(), strict=True))

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """See `Group`."""
        for kind in dict.fromkeys(t.dtype for t in tensors):
            same = [t for t in tensors if t.dtype == kind]
            flat = torch.cat([t.detach().flatten().to(self.device) for t in same])
            with reached():
                dist.broadcast(flat, src=0)
            with torch.no_grad():
                for tensor, piece in zip(same, flat.split([t.numel() for t in same]), strict=True):
                    tensor.copy_(piece.view_as(tensor))

    def statistics(self, x: Tensor, weight: float) -> tuple[Tensor, Tensor, int]:
        """See `Group`; connected to x by autograd, in every process."""
        if x.dtype in (torch.bfloat16, torch.float16):
            x = x.float()
        count = round(x.numel() / x.shape[1] / weight)
        mean = _sum(x.sum((0, 2, 3)), weight) / count
        apart = (x - mean[:, None, None]).square().sum((0, 2, 3))
        return mean, _sum(apart, weight) / count, count

    # --- the end

    def obey(self, stop: Stop) -> None:
        """See `Group`."""
        self._stop = stop
        stop.hold()

    def check(self) -> None:
        """See `Group`."""
        if self._ending:
            raise Interrupted("SIGTERM")

    def leave(self) -> None:
        """See `Group`; from now on a signal ends this process wherever it is."""
        self._exchange(None)
        dist.destroy_process_group()
        if self._stop is not None:
            self._stop.release()

    def _asked(self) -> bool:
        return self._stop is not None and self._stop.signal is not None

    @contextmanager
    def _released(self) -> Iterator[None]:
        """Let signals end the block at once: no other process takes part in it."""
        if self._stop is None:
            yield
            return
        self._stop.release()
        try:
            yield
        finally:
            self._stop.hold()


@contextmanager
def reached() -> Iterator[None]:
    """Say it in a line if the other processes are not there any more."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise PeerError(dist.get_rank(), dist.get_world_size(), error) from error


_CPU = torch.device("cpu")
_INTERRUPTED = 130


def _outcome(problem: BaseException | None) -> tuple[int, str]:
    """Return the exit status that belongs to a problem (0: none), and its line."""
    if problem is None:
        return 0, ""
    if isinstance(problem, KeyboardInterrupt):
        return _INTERRUPTED, "interrupted"
    return (2 if isinstance(problem, UserError) else 1), str(problem)


def _count(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() for t in tensors)


class _Sum(torch.autograd.Function):
    """The sum over processes whose losses are averaged afterwards with these weights.

    Backward, the loss of process q counts w_q: what arrives is Σ_q w_q g_q, and since this
    process's own gradients will be multiplied by w, it is divided by it here. So gradients are
    those of the mean loss over all processes as a function of everything.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        total = x.detach().clone()
        with reached():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        weight = ctx.weight
        return _sum(gradients[0].contiguous() * weight, weight) / weight, None


def _sum(x: Tensor, weight: float) -> Tensor:
    total: Tensor = _Sum.apply(x, weight)
    return total


def close() -> None:
    """Leave the process group if there still is one, after a run that went well."""
    with contextlib.suppress(RuntimeError, ValueError):
        if dist.is_initialized():
            dist.destroy_process_group()
