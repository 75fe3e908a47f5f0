"""FC100: CIFAR-100 as 60 / 20 / 20 classes, no superclass in two parts."""

from __future__ import annotations

from metakd.data.cifar100 import Cifar100

__all__ = ["FC100"]


class FC100(Cifar100):
    """Oreshkin, Rodriguez and Lacoste, "TADAM", NeurIPS 2018; 12 / 4 / 4 superclasses."""

    name = "fc100"
    default_split = "fc100"
