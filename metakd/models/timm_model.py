"""Any image network of timm by name, as a backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.data.preprocessing import Preprocessing
from metakd.errors import UserError, first_line, nearest
from metakd.models.normalization import BatchNorm2d, replace_batchnorm
from metakd.models.outside import ImageEncoder, OwnView, dry_run, library, weights_of

__all__ = ["TimmModel"]


class TimmModel(ImageEncoder):
    """A network of timm (github.com/huggingface/pytorch-image-models) without its classifier.

    Its batch norm is replaced by ours (same parameters and buffers, explicit modes). Grey images
    are repeated to three channels.

    Args:
        input_shape: (channels, height, width) of an example; 1 or 3 channels.
        model: name as in `timm.list_models()`, also with a tag (`resnet18.a1_in1k`), or
            `local-dir:FOLDER`, `hf-hub:NAME`.
        pretrained: start from the weights of that name, from the hub's cache or downloaded.
        checkpoint: file of weights that are put in afterwards: nothing is downloaded.
        view: how pictures are shown to it, see `own_input`.

    Raises:
        UserError: timm is not installed, no such model, images it cannot take, weights that cannot
            be had.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        model: str | None = None,
        pretrained: bool = False,
        checkpoint: str | None = None,
        view: OwnView = OwnView(),
    ) -> None:
        super().__init__()
        if len(input_shape) != 3 or input_shape[0] not in (1, 3):
            raise UserError(
                f"timm models take grey or colour images, not examples of shape {list(input_shape)}"
            )
        timm, said = library("timm", "timm"), _said(model)
        # Transformers are built for one size; their weights are fitted to it.
        sized = {"img_size": tuple(input_shape[1:])} if said["fixed_input_size"] else {}
        wanted = pretrained and checkpoint is None

        def made() -> nn.Module:
            network: nn.Module = timm.create_model(model, pretrained=wanted, num_classes=0, **sized)
            return network

        if wanted:
            instead = "name a file, teacher.checkpoint=FILE, or set pretrained=false"
            network = weights_of(made, f"timm's {model}", instead)
        else:
            try:
                network = made()
            except (TypeError, ValueError, RuntimeError, AssertionError) as error:
                size = "x".join(map(str, input_shape[1:]))
                raise UserError(
                    f"timm's {model} cannot be built for images of {size} pixels "
                    f"({first_line(error)}); change the size or the model"
                ) from error
        self._classifier = said["classifier"]
        self._statistics = view.statistics(said)
        self.model = replace_batchnorm(_plain_norms(network))
        self.expected_statistics = self._statistics if wanted else None
        self.embedding_size = dry_run(self, input_shape, f"timm's {model}")

    @classmethod
    def own_input(
        cls,
        given: Preprocessing,
        *,
        model: str | None = None,
        pretrained: bool = False,
        checkpoint: str | None = None,
        view: OwnView = OwnView(),
    ) -> PicturePreprocessing:
        """Return how a teacher of this kind is shown pictures: as timm's data config says.

        Args:
            given: how the data's examples are made.
            model: see the class.
            pretrained: see the class.
            checkpoint: see the class.
            view: what is to be otherwise.

        Raises:
            UserError: as the class, or a value that cannot be.
        """
        data = library("timm.data", "timm").resolve_data_config(pretrained_cfg=_said(model))
        size, interpolation = data["input_size"], data["interpolation"]
        said = {
            "image_size": size[1],
            "crop": data["crop_pct"],
            "interpolation": "bilinear" if interpolation == "bilinear" else "bicubic",
            "mean": data["mean"],
            "std": data["std"],
        }
        return view.of(given, said, f"timm's {model}")

    def translated(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights under the names that they have here.

        A file of timm's is a whole classifier's state dict. Its classifier is left out, position
        embeddings of another size of pictures are scaled, and what the weights expect of their
        input becomes `expected_statistics`. A file of ours is returned as it is.
        """
        if any(name.startswith("model.") for name in tensors):
            return dict(tensors)
        self.expected_statistics = self._statistics
        heads = tuple(f"{name}." for name in self._classifier)
        own = self.state_dict()
        found = {f"model.{name}": tensor for name, tensor in tensors.items()}
        places = own.get("model.pos_embed")
        if places is not None and found.get("model.pos_embed", places).shape != places.shape:
            found["model.pos_embed"] = _scaled_places(self.model, found["model.pos_embed"])
        return {
            name: tensor
            for name, tensor in found.items()
            if name in own or not name.removeprefix("model.").startswith(heads)
        }


def _said(model: str | None) -> dict[str, Any]:
    """Return what timm says of a model: input, classifier, whether its size is fixed.

    Raises:
        UserError: timm is not installed, there is no such model.
    """
    timm = library("timm", "timm")
    if model is None:
        raise UserError("timm: name a model, for example model=mobilenetv4_conv_small")
    source, _, place = model.partition(":")
    if place and source in ("local-dir", "hf-hub"):
        said = _config_from(timm, source, place)
    else:
        said = _config_of(timm, model)
    heads = said.get("classifier") or ()
    return {**said, "classifier": (heads,) if isinstance(heads, str) else tuple(heads)}


def _config_from(timm: Any, source: str, place: str) -> dict[str, Any]:
    """Return what the config.json of a folder, or of a model of the hub, says."""

    def read() -> tuple[dict[str, Any], str]:
        if source == "hf-hub":
            config, name, _ = library("timm.models", "timm").load_model_config_from_hf(place)
            return config, name
        content = json.loads((Path(place).expanduser() / "config.json").read_text("utf-8"))
        return content.get("pretrained_cfg", content), content["architecture"]

    config, name = weights_of(read, f"timm's {source}:{place}", "name another one, or a file")
    return {**_config_of(timm, name), **config}


def _config_of(timm: Any, model: str) -> dict[str, Any]:
    name, _, tag = model.partition(".")
    if not timm.is_model(name):
        raise UserError(f"timm has no model '{model}'." + nearest(name, timm.list_models()))
    try:
        config = timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        known = timm.list_pretrained(f"{name}.*")
        raise UserError(f"timm's {name} has no weights '{tag}'." + nearest(model, known)) from error
    found: dict[str, Any] = config.to_dict()
    return {"fixed_input_size": False, **found}


def _scaled_places(network: Any, places: Tensor) -> Tensor:
    """Return a transformer's position embeddings [1, tokens, width] for its size of pictures."""
    prefix = 0 if getattr(network, "no_embed_class", False) else network.num_prefix_tokens
    resampled: Tensor = library("timm.layers", "timm").resample_abs_pos_embed(
        places, new_size=network.patch_embed.grid_size, num_prefix_tokens=prefix
    )
    return resampled


class _NormAct(BatchNorm2d):
    """Ours followed by an activation: timm keeps the two in one layer, under the norm's names."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated, normalised images, shaped as `x`."""
        activated: Tensor = self.act(self.drop(super().forward(x)))
        return activated


def _plain_norms(module: nn.Module) -> nn.Module:
    """Put ours in the place of timm's batch norms with an activation; names are kept."""
    from timm.layers import BatchNormAct2d

    child: Any
    for name, child in list(module.named_children()):
        if type(child) is BatchNormAct2d:
            ours = _NormAct(
                child.num_features,
                child.eps,
                child.momentum,
                child.affine,
                child.track_running_stats,
            )
            ours._parameters, ours._buffers = child._parameters, child._buffers
            ours.drop, ours.act = child.drop, child.act
            setattr(module, name, ours.train(child.training))
        else:
            _plain_norms(child)
    return module
