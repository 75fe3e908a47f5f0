"""Any torchvision classifier by name, as a backbone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torchvision
from torch import Tensor, nn

from metakd.errors import UserError, first_line, nearest
from metakd.models.normalization import replace_batchnorm
from metakd.models.outside import ImageEncoder, dry_run

__all__ = ["TorchvisionModel"]

_CLASSES = 1000  # torchvision's classifiers end in this many logits unless told otherwise
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Names under which these two keep them."""


class TorchvisionModel(ImageEncoder):
    """A classifier of `torchvision.models` without its last layer.

    Its batch norm is replaced by ours (same parameters and buffers, explicit modes). Grey images
    are repeated to three channels.

    Args:
        input_shape: (channels, height, width) of an example; 1 or 3 channels.
        model: name as in `torchvision.models.list_models()`, e.g. `resnet18`.
        pretrained: start from torchvision's default weights, from torch hub's cache or downloaded.

    Raises:
        UserError: no such model, images it cannot take, weights that cannot be had.
    """

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
        network = _load(model, pretrained)
        self._name = model
        self._classifier = _classifier_of(network, model)
        self.model = replace_batchnorm(_without(network, self._classifier))
        self.expected_statistics = _statistics_of(model) if pretrained else None
        self.embedding_size = dry_run(self, input_shape, f"torchvision's {model}")

    def translated(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights under the names that they have here.

        A file of torchvision's own is a whole classifier's state dict (`conv1.weight` … `fc.bias`).
        Its last layer, over ImageNet's classes, is left out, and what the weights expect of their
        input becomes `expected_statistics`. Any other file is returned as it is.
        """
        if any(name.startswith("model.") for name in tensors):
            return dict(tensors)
        last = (f"{self._classifier}.weight", f"{self._classifier}.bias")
        if last[0] not in tensors:
            return dict(tensors)
        left_out = (*last, *_AUXILIARY)
        found = {f"model.{k}": v for k, v in tensors.items() if not k.startswith(left_out)}
        for name, tensor in self.state_dict().items():
            if name.endswith(".num_batches_tracked"):  # files from before torch 0.4.1 lack it
                found.setdefault(name, torch.zeros_like(tensor))
        if tensors[last[0]].shape[0] == _CLASSES:
            self.expected_statistics = _statistics_of(self._name)
        return found


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
            f"({first_line(error)}); put the file into {torch.hub.get_dir()}/checkpoints, "
            "or set pretrained=false"
        ) from error


def _statistics_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation that torchvision's own weights of a classifier expect."""
    transforms = torchvision.models.get_model_weights(name)["DEFAULT"].transforms()
    return tuple(transforms.mean), tuple(transforms.std)


def _classifier_of(network: nn.Module, name: str) -> str:
    """Return the path of the last layer that yields class logits."""
    last = None
    for path, layer in network.named_modules():
        linear = isinstance(layer, nn.Linear) and layer.out_features == _CLASSES
        convolution = isinstance(layer, nn.Conv2d) and layer.out_channels == _CLASSES
        if linear or convolution:  # squeezenet classifies by a 1x1 convolution
            last = path
    if last is None:
        raise UserError(f"torchvision's {name} has no classifier layer that we could take off")
    return last


def _without(network: nn.Module, path: str) -> nn.Module:
    """Replace a layer by the identity."""
    parent, _, child = path.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return network
