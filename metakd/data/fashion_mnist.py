"""Fashion-MNIST: 70,000 grey pictures of clothes, 28x28, in MNIST's form."""

from __future__ import annotations

from metakd.data.mnist import Mnist

__all__ = ["FashionMnist"]


class FashionMnist(Mnist):
    """Xiao, Rasul and Vollgraf 2017; read from ``FashionMNIST/raw/``, else as `Mnist`."""

    name = "fashion_mnist"
    folder = "FashionMNIST"
    published = "FashionMNIST"
    class_names = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
