"""Normalisation that says whose statistics it uses, and whose gradients are right on every path.

PyTorch's native batch norm gives silently wrong second-order gradients when `torch.func.vmap` of
an inner gradient is followed by an outer backward pass. The layer here uses native code wherever
that is right (it is faster) and statistics written by hand where it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.nn import functional as F

from metakd.errors import UserError, nearest
from metakd.models.batchnorm_gradients import batch_statistics, normalise
from metakd.models.layout import on_plain_cpu

__all__ = [
    "BatchNorm2d",
    "Mode",
    "batchable",
    "batchnorm_mode",
    "forget_statistics",
    "has_batchnorm",
    "has_running_statistics",
    "make_norm",
    "replace_batchnorm",
    "set_running_statistics",
    "shared_statistics",
]

Mode = Literal["batch", "running", "record", "recorded"]
SharedStatistics = Callable[[Tensor], tuple[Tensor, Tensor, int]]

_MODES = ("batch", "running", "record", "recorded")
_KINDS = ("batch", "group", "layer", "none")
_CHANNELS_OF_A_GROUP = 16  # Wu & He 2018, table 3


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm over [n, channels, height, width] with an explicit choice of statistics.

    Parameters, buffers and their names are those of `torch.nn.BatchNorm2d`. Which statistics a
    pass uses is set with `batchnorm_mode`:

    * `batch`: this batch's. The running ones are updated only if the module is in training mode
      and keeps them.
    * `running`: the running ones.
    * `record`: this batch's, which are remembered with their gradient; the running ones stay.
    * `recorded`: those remembered by the last `record` pass; gradients flow to that batch.

    With no mode set: this batch's in training mode, otherwise the running ones, or this batch's
    where there are none.

    What is remembered belongs to the instance: a copy (one per thread, say) starts with no mode
    and nothing remembered.
    """

    mode: Mode | None
    recorded: tuple[Tensor, Tensor] | None
    """Mean and biased variance [channels] of the last `record` pass."""
    shared: SharedStatistics | None
    """Gives this batch's statistics where it is a part of one (`shared_statistics`)."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        self.mode = None
        self.recorded = None
        self.shared = None

    @property
    def by_batch_alone(self) -> bool:
        """Whether a pass uses this batch's statistics as they are, and leaves nothing behind."""
        alone = self._mode() == "batch" and not self._updates() and self.shared is None
        return alone and not self._is_hooked()

    def take_statistics(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return mean and biased variance [channels] by which a pass normalises x, in three modes.

        In mode `record` they are remembered, as by the pass itself. Not for gradients.

        Args:
            x: [n, channels, height, width].

        Returns:
            None: in mode `batch`, and where hooks look on or there are no statistics.
        """
        mode = self._mode()
        if self._is_hooked():
            return None
        if mode == "record":
            self.recorded = batch_statistics(x)
        if mode in ("record", "recorded"):
            return self.recorded
        if mode != "running" or self.running_mean is None or self.running_var is None:
            return None
        return self.running_mean, self.running_var

    def _is_hooked(self) -> bool:
        hooks = (
            self._forward_hooks,
            self._forward_pre_hooks,
            self._backward_hooks,
            self._backward_pre_hooks,
        )
        return any(hooks)

    def __getstate__(self) -> dict[str, Any]:
        # Remembered statistics hang on an autograd graph, which cannot be copied.
        return {**self.__dict__, "mode": None, "recorded": None, "shared": None}

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [n, channels, height, width]; same shape, same dtype."""
        self._check_input_dim(input)
        mode = self._mode()
        if mode == "running":
            if self.running_mean is None or self.running_var is None:
                raise RuntimeError("batch-norm mode 'running': this layer keeps no running ones")
            return self._normalise(input, self.running_mean, self.running_var)
        if mode == "recorded":
            if self.recorded is None:
                raise RuntimeError("batch-norm mode 'recorded': no 'record' pass came before")
            return self._normalise(input, *self.recorded)
        if mode == "record":
            return self._record(input)
        return self._by_batch(input)

    def _mode(self) -> Mode:
        if self.mode is not None:
            return self.mode
        return "batch" if self.training or self.running_mean is None else "running"

    def _updates(self) -> bool:
        return self.training and self.running_mean is not None

    def _record(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() and not get_interpreter_stack():
            # The native pass computes the statistics anyway; a second look at x costs as much
            # again. Only where no gradient can flow to them.
            y, mean, inverse = torch.native_batch_norm(
                x, self.weight, self.bias, None, None, True, 0.0, self.eps
            )
            self.recorded = (mean, inverse.pow(-2) - self.eps)
            return y
        self.recorded = _statistics(x)
        if _under_vmap():
            return self._normalise(x, *self.recorded)
        return self._by_batch_alone(x)

    def _by_batch_alone(self, x: Tensor) -> Tensor:
        several = x.numel() > x.shape[1]  # PyTorch refuses a single value of a channel
        if several and self.affine and torch.is_grad_enabled() and on_plain_cpu(x):
            return normalise(x, self.weight, self.bias, self.eps)
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)

    def _by_batch(self, x: Tensor) -> Tensor:
        update = self._updates()
        if _under_vmap():
            if update:
                raise RuntimeError(
                    "running statistics cannot be updated under vmap: switch them off with "
                    "set_running_statistics(module, False), or call module.eval()"
                )
            return self._normalise(x, *_statistics(x))
        if self.shared is not None:
            return self._by_shared(x, self.shared, update)
        if not update:
            return self._by_batch_alone(x)
        momentum = self._counted()
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, True, momentum, self.eps
        )

    def _by_shared(self, x: Tensor, statistics: SharedStatistics, update: bool) -> Tensor:
        mean, variance, count = statistics(x)
        if update:
            assert self.running_mean is not None and self.running_var is not None
            momentum = self._counted()
            unbiased = variance.detach() * (count / max(count - 1, 1))
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        return self._normalise(x, mean, variance)

    def _counted(self) -> float:
        """Count a batch; return its weight in the running statistics."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        if self.momentum is None:  # cumulative average
            return 1.0 / float(self.num_batches_tracked)
        return self.momentum

    def _normalise(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Normalise by given statistics, with gradients to them where they ask for any."""
        constant = not (torch.is_grad_enabled() and (mean.requires_grad or variance.requires_grad))
        if constant and not get_interpreter_stack():
            return F.batch_norm(x, mean, variance, self.weight, self.bias, False, 0.0, self.eps)
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        y = x * scale[:, None, None] + shift[:, None, None]
        return y.to(x.dtype)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance [channels] of [n, channels, height, width]."""
    if x.dtype in (torch.bfloat16, torch.float16):
        x = x.float()
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    return mean, variance


def _under_vmap() -> bool:
    """Say whether a `torch.func.vmap` is going on in this thread, at any level.

    A batched tensor may be wrapped by an inner `grad`, so looking at the input is not enough.
    """
    stack = get_interpreter_stack()
    return bool(stack) and any(level.key() == TransformType.Vmap for level in stack)


def _batchnorms(module: nn.Module) -> Iterator[BatchNorm2d]:
    return (m for m in module.modules() if isinstance(m, BatchNorm2d))


@contextmanager
def batchnorm_mode(module: nn.Module, mode: Mode) -> Iterator[None]:
    """Set the statistics that every `BatchNorm2d` in `module` uses; the old choice comes back.

    Args:
        module: any module; one without batch norm is left as it is.
        mode: see `BatchNorm2d`. What `record` remembers outlives the block, until the next
            `record` pass or `forget_statistics`.

    Raises:
        ValueError: no such mode.
    """
    if mode not in _MODES:
        raise ValueError(f"batch-norm mode '{mode}' is none of {', '.join(_MODES)}")
    layers = list(_batchnorms(module))
    before = [layer.mode for layer in layers]
    for layer in layers:
        layer.mode = mode
    try:
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.mode = old


@contextmanager
def shared_statistics(
    modules: Iterable[nn.Module], statistics: SharedStatistics | None
) -> Iterator[None]:
    """Let every `BatchNorm2d` in `modules` ask `statistics` for those of its batch.

    For a batch of which each of several processes has a part: normalised by the whole batch's
    statistics, a part gives what it gives within the whole.

    Args:
        modules: any modules; not those that normalise each task by itself.
        statistics: maps [n, channels, height, width] to mean and biased variance [channels],
            connected to it by autograd, and the number of values of a channel; None: its own.
    """
    layers = [layer for module in modules for layer in _batchnorms(module)]
    for layer in layers:
        layer.shared = statistics
    try:
        yield
    finally:
        for layer in layers:
            layer.shared = None


def forget_statistics(module: nn.Module) -> None:
    """Drop what `record` passes remembered (and with it the graph that it keeps alive)."""
    for layer in _batchnorms(module):
        layer.recorded = None


def has_batchnorm(module: nn.Module) -> bool:
    """Say whether predictions depend on batch statistics, so that there are modes to choose."""
    return any(True for _ in _batchnorms(module))


def has_running_statistics(module: nn.Module) -> bool:
    """Say whether `module` has batch norm and every such layer keeps running statistics."""
    layers = list(_batchnorms(module))
    return bool(layers) and all(layer.running_mean is not None for layer in layers)


def set_running_statistics(module: nn.Module, on: bool) -> None:
    """Switch running statistics of every `BatchNorm2d` off, or on again from a fresh start.

    A network that only ever adapts has no use for them: its inductive statistics are those of
    the support set (method.md section 8). Layers that are as asked stay untouched.
    """
    for layer in _batchnorms(module):
        if (layer.running_mean is not None) == on:
            continue
        layer.track_running_stats = on
        if on:
            like: dict[str, Any] = {"device": None, "dtype": None}
            if layer.weight is not None:
                like = {"device": layer.weight.device, "dtype": layer.weight.dtype}
            layer.running_mean = torch.zeros(layer.num_features, **like)
            layer.running_var = torch.ones(layer.num_features, **like)
            layer.num_batches_tracked = torch.tensor(0, device=like["device"])
        else:
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None


def make_norm(kind: str, channels: int) -> nn.Module:
    """Return a normalisation layer for [n, channels, height, width].

    Args:
        kind: `batch`; `group` (16 channels a group; one group where 16 does not divide
            `channels`); `layer` (one group: all channels and pixels of an example together);
            `none`.
        channels: number of channels.

    Raises:
        UserError: no such kind.
    """
    if kind == "batch":
        return BatchNorm2d(channels)
    if kind == "group":
        whole = channels % _CHANNELS_OF_A_GROUP == 0
        return nn.GroupNorm(channels // _CHANNELS_OF_A_GROUP if whole else 1, channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    if kind == "none":
        return nn.Identity()
    raise UserError(
        f"norm={kind}: there is no such normalisation; choose one of {', '.join(_KINDS)}."
        + nearest(kind, _KINDS)
    )


def replace_batchnorm(module: nn.Module) -> nn.Module:
    """Put ours in the place of every `torch.nn.BatchNorm2d`; parameters and buffers are kept.

    Returns:
        `module`, or its replacement if it is such a layer itself.
    """
    if type(module) is nn.BatchNorm2d:
        ours = BatchNorm2d(
            module.num_features,
            module.eps,
            module.momentum,
            module.affine,
            module.track_running_stats,
        )
        ours._parameters = module._parameters
        ours._buffers = module._buffers
        return ours.train(module.training)
    for name, child in list(module.named_children()):
        setattr(module, name, replace_batchnorm(child))
    return module


def batchable(module: nn.Module) -> bool:
    """Say whether second-order gradients through `torch.func.vmap` are right for this network.

    They are not with native batch, instance or layer norm; ours, and group norm, are safe.
    """
    native = (nn.modules.batchnorm._NormBase, nn.LayerNorm)
    return all(isinstance(m, BatchNorm2d) or not isinstance(m, native) for m in module.modules())
