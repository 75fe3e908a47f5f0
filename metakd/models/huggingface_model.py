"""Any vision or text encoder of transformers by name or folder, as a backbone."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.data.preprocessing import Preprocessing
from metakd.data.tokens import Tokens
from metakd.errors import UserError, check_word
from metakd.models.normalization import replace_batchnorm
from metakd.models.outside import OwnView, dry_run, in_colour, library, weights_of

__all__ = ["HuggingfaceModel"]

POOLS = ("first", "mean")


class HuggingfaceModel(nn.Module):
    """An encoder that `transformers.AutoModel` loads; of a model of pictures and texts, one side.

    Attributes:
        embedding_size: width of its hidden states (of its last map, for convolutions).
        expected_statistics: (mean, standard deviation) of the pixels, by channel, with which the
            weights were trained; None for texts and for weights that are trained here.
        reads: what an encoder of texts reads; of its tokenizer.

    Args:
        input_shape: (channels, height, width) of a picture, or (length,) of a text.
        model: name on the hub, or a folder.
        pretrained: start from its weights, from the cache or downloaded.
        pool: `first` token or `mean` of all; null: the first where a picture's encoder has a class
            token, else the mean.
        length: most tokens of a text.
        view: how pictures are shown to it, see `own_input`.

    Raises:
        UserError: transformers is not installed, the model cannot be had or cannot take these.
    """

    embedding_size: int
    expected_statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        model: str | None = None,
        pretrained: bool = False,
        pool: str | None = None,
        length: int = 128,
        view: OwnView = OwnView(),
    ) -> None:
        super().__init__()
        if pool is not None:
            check_word("options.pool", pool, POOLS)
        transformers, who = library("transformers", "huggingface"), _who(model)

        def made() -> nn.Module:
            if pretrained:
                network: nn.Module = transformers.AutoModel.from_pretrained(model)
            else:
                config = transformers.AutoConfig.from_pretrained(model)
                network = transformers.AutoModel.from_config(config)
            return network.float()

        network = weights_of(made, who, "name a folder, teacher.model=FOLDER")
        self._pictures = len(input_shape) == 3
        side: Any = getattr(network, "vision_model" if self._pictures else "text_model", network)
        self.model = replace_batchnorm(side)
        self._resizes = "interpolate_pos_encoding" in inspect.signature(side.forward).parameters
        class_token = any("cls_token" in n or "class_emb" in n for n, _ in side.named_parameters())
        self._first = pool == "first" or (pool is None and self._pictures and class_token)
        if self._pictures:
            if pretrained:
                self.expected_statistics = view.statistics(_said(transformers, model))
            self.embedding_size = dry_run(self, input_shape, who)
        else:
            self.reads = Tokens(
                length=length, lower=False, tokenizer=_tokenizer(transformers, model)
            )
            self.embedding_size = int(side.config.hidden_size)

    def forward(self, examples: Tensor) -> Tensor:
        """Return embeddings [n, embedding_size] of images [n, 1 or 3, h, w] or ids [n, length]."""
        if not self._pictures:
            mask = examples != 0
            ids = (examples.long() - 1).clamp_(min=0)
            return self._pooled(self.model(input_ids=ids, attention_mask=mask.long())[0], mask)
        how = {"interpolate_pos_encoding": True} if self._resizes else {}
        found: Tensor = self.model(pixel_values=in_colour(examples), **how)[0]
        return found.mean((2, 3)) if found.ndim == 4 else self._pooled(found, None)

    def _pooled(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        if self._first:
            return hidden[:, 0]
        if mask is None:
            return hidden.mean(1)
        weights = mask.to(hidden.dtype)[..., None]
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)

    @classmethod
    def own_input(
        cls,
        given: Preprocessing,
        *,
        model: str | None = None,
        pretrained: bool = False,
        pool: str | None = None,
        length: int = 128,
        view: OwnView = OwnView(),
    ) -> PicturePreprocessing | None:
        """Return how a teacher of this kind is shown pictures: as its image processor says.

        None for texts: these it reads by `reads`. Parameters as the class.
        """
        if not isinstance(given, PicturePreprocessing):
            return None
        transformers = library("transformers", "huggingface")
        return view.of(given, _said(transformers, model), _who(model))


def _who(model: str | None) -> str:
    if model is None:
        raise UserError(
            "huggingface: name a model or a folder, for example model=facebook/dinov2-small"
        )
    return f"transformers' {model}"


def _said(transformers: Any, model: str | None) -> dict[str, Any]:
    """Return what a model's image processor says of the pictures that it expects."""
    load = transformers.AutoImageProcessor.from_pretrained
    processor = weights_of(lambda: load(model), f"the image processor of {model}", "name a folder")
    size, cut = processor.size, getattr(processor, "crop_size", None)
    edge = size.get("shortest_edge", size.get("height"))
    crops = bool(getattr(processor, "do_center_crop", False)) and cut
    shown = cut["height"] if cut and crops else edge
    bilinear = int(processor.resample) == 2
    return {
        "image_size": shown,
        "crop": min(1.0, shown / edge),
        "interpolation": "bilinear" if bilinear else "bicubic",
        "mean": tuple(processor.image_mean),
        "std": tuple(processor.image_std),
    }


def _tokenizer(transformers: Any, model: str | None) -> str:
    """Return the JSON of a model's tokenizer."""
    if model is not None and (Path(model) / "tokenizer.json").is_file():
        return (Path(model) / "tokenizer.json").read_text("utf-8")
    load = transformers.AutoTokenizer.from_pretrained
    found = weights_of(lambda: load(model), f"the tokenizer of {model}", "name a folder")
    backend = getattr(found, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"the tokenizer of {model} is not one of the library tokenizers")
    content: str = backend.to_str()
    return content
