"""The image tower of any CLIP model that open_clip knows, as a backbone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.data.preprocessing import Preprocessing
from metakd.errors import UserError, nearest
from metakd.models.normalization import replace_batchnorm
from metakd.models.outside import ImageEncoder, OwnView, dry_run, library, weights_of

__all__ = ["OpenClipModel"]


class OpenClipModel(ImageEncoder):
    """A CLIP model's image encoder (github.com/mlfoundations/open_clip); its texts are left out.

    Args:
        input_shape: (channels, height, width) of an example; 1 or 3 channels.
        model: name as in `open_clip.list_models()`, e.g. `ViT-B-32`.
        pretrained: start from the weights `weights`, from the cache or downloaded.
        checkpoint: file of weights that are put in afterwards: nothing is downloaded.
        weights: name of the training (`laion2b_s34b_b79k`), as in `open_clip.list_pretrained()`.
        view: how pictures are shown to it, see `own_input`.

    Raises:
        UserError: open_clip is not installed, no such model or weights.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        model: str | None = None,
        pretrained: bool = False,
        checkpoint: str | None = None,
        weights: str | None = None,
        view: OwnView = OwnView(),
    ) -> None:
        super().__init__()
        clip, said = library("open_clip", "open_clip"), _said(model, weights)
        wanted = pretrained and checkpoint is None
        if wanted and weights is None:
            known = ", ".join(clip.list_pretrained_tags_by_model(model)) or "none"
            raise UserError(
                f"open_clip: which weights of {model}? type options.weights= one of: {known}; or "
                "name a file, teacher.checkpoint=FILE"
            )
        size = tuple(input_shape[1:])

        def made() -> nn.Module:
            with _unsaid(not wanted):
                whole = clip.create_model(
                    model,
                    pretrained=weights if wanted else None,
                    force_image_size=None if size == (said["image_size"],) * 2 else size,
                )
            tower: nn.Module = whole.visual
            return tower

        instead = "name a file, teacher.checkpoint=FILE, or set pretrained=false"
        network = weights_of(made, f"open_clip's {model}", instead)
        self.model = replace_batchnorm(network)
        self._statistics = view.statistics(said)
        self.expected_statistics = self._statistics if wanted else None
        self.embedding_size = dry_run(self, input_shape, f"open_clip's {model}")

    @classmethod
    def own_input(
        cls,
        given: Preprocessing,
        *,
        model: str | None = None,
        pretrained: bool = False,
        checkpoint: str | None = None,
        weights: str | None = None,
        view: OwnView = OwnView(),
    ) -> PicturePreprocessing:
        """Return how a teacher of this kind is shown pictures; parameters as the class."""
        return view.of(given, _said(model, weights), f"open_clip's {model}")

    def translated(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return weights under the names that they have here; of a whole CLIP model the images'.

        Position embeddings of another size of pictures are scaled, as open_clip does.
        """
        visual = {k: v for k, v in tensors.items() if k.startswith("visual.")}
        if not visual:
            return dict(tensors)
        self.expected_statistics = self._statistics
        resize = library("open_clip.model", "open_clip").resize_pos_embed
        resize(visual, SimpleNamespace(visual=self.model))
        return {f"model.{name.removeprefix('visual.')}": v for name, v in visual.items()}


@contextmanager
def _unsaid(no_weights: bool) -> Iterator[None]:
    """Keep open_clip from warning that there are no weights where none were asked for."""
    root = logging.getLogger()

    def other(record: logging.LogRecord) -> bool:
        return not (no_weights and record.getMessage().startswith("No pretrained weights loaded"))

    root.addFilter(other)
    try:
        yield
    finally:
        root.removeFilter(other)


def _said(model: str | None, weights: str | None) -> dict[str, Any]:
    """Return what open_clip says of the pictures that a model expects.

    Raises:
        UserError: open_clip is not installed, no such model or weights.
    """
    clip = library("open_clip", "open_clip")
    if model is None:
        raise UserError("open_clip: name a model, for example model=ViT-B-32")
    config = clip.get_model_config(model)
    if config is None:
        raise UserError(f"open_clip has no model '{model}'." + nearest(model, clip.list_models()))
    known = clip.list_pretrained_tags_by_model(model)
    if weights is not None and weights not in known:
        raise UserError(
            f"open_clip's {model} has no weights '{weights}'." + nearest(weights, known)
        )
    said = {} if weights is None else clip.get_pretrained_cfg(model, weights)
    size = config["vision_cfg"].get("image_size", 224)
    interpolation = said.get("interpolation") or "bicubic"
    return {
        "image_size": size if isinstance(size, int) else size[0],
        "interpolation": interpolation if interpolation == "bilinear" else "bicubic",
        "mean": tuple(said.get("mean") or clip.OPENAI_DATASET_MEAN),
        "std": tuple(said.get("std") or clip.OPENAI_DATASET_STD),
    }
