"""Any torchvision classifier by name, as a backbone."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

from metakd.errors import UserError, nearest
from metakd.models.normalization import replace_batchnorm

__all__ = ["TorchvisionModel"]

_CLASSES = 1000  # torchvision's classifiers end in this many logits unless told otherwise
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


class TorchvisionModel(nn.Module):
    """A classifier of `torchvision.models` without its last layer.

    Its batch norm is replaced by ours (same parameters and buffers, explicit modes). Grey images
    are repeated to three channels. Pretrained weights were trained on ImageNet images normalised
    by ImageNet's mean and deviation; ours are normalised by the dataset's own, which comes close.

    Args:
        input_shape: (channels, height, width) of an example; 1 or 3 channels.
        model: name as in `torchvision.models.list_models()`, e.g. `resnet18`.
        pretrained: start from torchvision's default weights, from torch hub's cache or downloaded.

    Raises:
        UserError: no such model, images it cannot take, weights that cannot be had.
    """

    embedding_size: int

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        model: str | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        names = torchvision.models.list_models(module=torchvision.models)
        if model is None:
            raise UserError("torchvision: name a classifier, for example model=resnet18")
        if model not in names:
            raise UserError(f"torchvision has no classifier '{model}'." + nearest(model, names))
        if len(input_shape) != 3 or input_shape[0] not in (1, 3):
            raise UserError(
                f"torchvision models take grey or colour images, not examples of shape "
                f"{list(input_shape)}"
            )
        self.model = replace_batchnorm(_without_classifier(_load(model, pretrained), model))
        self.embedding_size = self._dry_run(model, input_shape)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, 1 or 3, height, width]."""
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        embeddings: Tensor = self.model(images)
        return embeddings

    def _dry_run(self, name: str, input_shape: tuple[int, ...]) -> int:
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                embeddings = self(torch.zeros(1, *input_shape))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(
                f"torchvision's {name} cannot take images of {input_shape[1]}x{input_shape[2]} "
                f"pixels ({_first_line(error)}); change dataset.image_size or the model"
            ) from error
        finally:
            self.train(was_training)
        assert embeddings.ndim == 2, f"{name} yields embeddings of shape {embeddings.shape}"
        return int(embeddings.shape[1])


def _load(name: str, pretrained: bool) -> nn.Module:
    # The auxiliary heads would turn the output into a tuple in training.
    settings = {"aux_logits": False} if name in _WITH_AUXILIARY_HEADS else {}
    if name in _WITH_AUXILIARY_HEADS and not pretrained:
        settings["init_weights"] = True  # torchvision's choice, without its warning
    try:
        return torchvision.models.get_model(
            name, weights="DEFAULT" if pretrained else None, **settings
        )
    except (OSError, RuntimeError, ValueError) as error:  # no network; damaged file; no weights
        if not pretrained:
            raise
        raise UserError(
            f"pretrained=true: the weights of torchvision's {name} cannot be had "
            f"({_first_line(error)}); put the file into {torch.hub.get_dir()}/checkpoints, "
            "or set pretrained=false"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _without_classifier(network: nn.Module, name: str) -> nn.Module:
    """Replace the last layer that yields class logits by the identity."""
    last = None
    for path, layer in network.named_modules():
        linear = isinstance(layer, nn.Linear) and layer.out_features == _CLASSES
        convolution = isinstance(layer, nn.Conv2d) and layer.out_channels == _CLASSES
        if linear or convolution:  # squeezenet classifies by a 1x1 convolution
            last = path
    if last is None:
        raise UserError(f"torchvision's {name} has no classifier layer that we could take off")
    parent, _, child = last.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return network
