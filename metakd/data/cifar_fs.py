"""CIFAR-FS: CIFAR-100 as 64 / 16 / 20 classes of 600 images."""

from __future__ import annotations

from metakd.data.cifar100 import Cifar100

__all__ = ["CifarFS"]


class CifarFS(Cifar100):
    """Bertinetto et al., "Meta-learning with differentiable closed-form solvers", ICLR 2019."""

    name = "cifar_fs"
    default_split = "cifar_fs"
