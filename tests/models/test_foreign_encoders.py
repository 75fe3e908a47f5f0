"""Encoders of transformers, open_clip, ONNX Runtime; those not installed are left out."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.data.tokens import Tokens
from metakd.errors import UserError
from metakd.models.cost import cost
from metakd.models.outside import OwnView

GIVEN = PicturePreprocessing(3, 32, 32, (0.4,) * 3, (0.2,) * 3)


class Small(nn.Module):
    """What `onnx_encoder` writes, for weights [6, 3]."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu().mean((2, 3)) @ self.weight.T


@pytest.fixture
def exported(onnx_encoder: Callable[..., Path], tmp_path: Path) -> tuple[Path, nn.Module]:
    torch.manual_seed(0)
    weight = torch.randn(6, 3)
    return onnx_encoder(tmp_path / "small.onnx", weight.tolist(), 12), Small(weight).eval()


def test_an_onnx_file_gives_the_exported_network_s_embeddings(
    exported: tuple[Path, nn.Module],
) -> None:
    from metakd.models.onnx_model import OnnxModel

    file, theirs = exported
    ours = OnnxModel((3, 12, 12), checkpoint=str(file)).eval()
    images = torch.randn(5, 3, 12, 12)
    torch.testing.assert_close(copy.deepcopy(ours)(images), theirs(images))
    assert ours.embedding_size == 6
    found = cost(ours, (3, 12, 12), "cpu")
    assert found["parameters"] == sum(p.numel() for p in theirs.parameters())
    assert found["bytes"] == file.stat().st_size
    assert "macs" not in found  # nobody has counted them
    with pytest.raises(UserError, match=r"has no output 'feature'\. Did you mean 'features'"):
        OnnxModel((3, 12, 12), checkpoint=str(file), output="feature")
    with pytest.raises(UserError, match=r"type options\.mean="):
        OnnxModel.own_input(GIVEN, checkpoint=str(file))
    view = OwnView(mean=[0.5] * 3, std=[0.5] * 3)
    assert OnnxModel.own_input(GIVEN, checkpoint=str(file), view=view).shape == (3, 12, 12)
    other = {"file": torch.zeros_like(ours.file)}
    with pytest.raises(UserError, match="is not the file that this teacher was"):
        ours.load_state_dict(other)


def test_a_file_that_is_no_encoder(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs pip install 'metakd[onnx]'")
    from metakd.models.onnx_model import OnnxModel

    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    with pytest.raises(UserError, match="cannot run it"):
        OnnxModel((3, 12, 12), checkpoint=str(tmp_path / "bad.onnx"))
    with pytest.raises(UserError, match=r"there is no such \.onnx file"):
        OnnxModel((3, 12, 12), checkpoint=str(tmp_path / "none.onnx"))
    with pytest.raises(UserError, match=r"name the file.*FILE.onnx"):
        OnnxModel((3, 12, 12))


def test_the_image_side_of_a_clip(caplog: pytest.LogCaptureFixture) -> None:
    clip: Any = pytest.importorskip("open_clip", reason="needs pip install 'metakd[open_clip]'")
    from metakd.models.open_clip_model import OpenClipModel

    small = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 100, "width": 64, "heads": 1, "layers": 1},
    }
    clip.factory._MODEL_CONFIGS["tiny-clip"] = small
    try:
        torch.manual_seed(0)
        with caplog.at_level(logging.CRITICAL):
            whole = clip.create_model("tiny-clip").eval()
        ours = OpenClipModel((3, 32, 32), model="tiny-clip").eval()
        assert not caplog.records  # none are said to be missing that nobody asked for
        ours.load_state_dict(ours.translated(whole.state_dict()))
        assert ours.expected_statistics == (clip.OPENAI_DATASET_MEAN, clip.OPENAI_DATASET_STD)
        images = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(ours(images), whole.encode_image(images))
        assert ours.embedding_size == 16
        larger = OpenClipModel((3, 64, 64), model="tiny-clip").eval()
        larger.load_state_dict(larger.translated(whole.state_dict()))
        theirs = clip.create_model("tiny-clip", force_image_size=64).eval()
        state = whole.state_dict()
        clip.model.resize_pos_embed(state, theirs)
        theirs.load_state_dict(state)
        images = torch.randn(2, 3, 64, 64)
        torch.testing.assert_close(larger(images), theirs.encode_image(images))
        expects = OpenClipModel.own_input(GIVEN, model="tiny-clip")
        assert (expects.shape, expects.interpolation) == ((3, 32, 32), "bicubic")
        with pytest.raises(UserError, match=r"which weights of tiny-clip\?"):
            OpenClipModel((3, 32, 32), model="tiny-clip", pretrained=True)
        with pytest.raises(UserError, match="has no weights 'nobody'"):
            OpenClipModel.own_input(GIVEN, model="tiny-clip", weights="nobody")
        with pytest.raises(UserError, match="Did you mean"):
            OpenClipModel((3, 32, 32), model="tiny-clp")
    finally:
        del clip.factory._MODEL_CONFIGS["tiny-clip"]


def test_a_folder_of_a_vision_transformer(tmp_path: Path) -> None:
    lib: Any = pytest.importorskip("transformers", reason="needs pip install 'metakd[huggingface]'")
    from metakd.models.huggingface_model import HuggingfaceModel

    config = lib.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
    )
    torch.manual_seed(0)
    theirs = lib.ViTModel(config, add_pooling_layer=False).eval()
    theirs.save_pretrained(tmp_path)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 32, "width": 32},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    expects = HuggingfaceModel.own_input(GIVEN, model=str(tmp_path))
    assert expects is not None
    assert (expects.mean, expects.interpolation) == ((0.1, 0.2, 0.3), "bicubic")
    ours = HuggingfaceModel(expects.shape, model=str(tmp_path), pretrained=True).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images).last_hidden_state[:, 0])
    mean = HuggingfaceModel(expects.shape, model=str(tmp_path), pretrained=True, pool="mean").eval()
    torch.testing.assert_close(mean(images), theirs(images).last_hidden_state.mean(1))
    assert mean(torch.randn(1, 1, 48, 48)).shape == (1, 16)  # another size, grey
    with pytest.raises(UserError, match="cannot be had"):
        HuggingfaceModel((3, 32, 32), model=str(tmp_path / "nothing"), pretrained=True)


def test_a_folder_of_an_encoder_of_texts(tmp_path: Path) -> None:
    lib: Any = pytest.importorskip("transformers", reason="needs pip install 'metakd[huggingface]'")
    tokenizers: Any = pytest.importorskip("tokenizers")
    from metakd.models.huggingface_model import HuggingfaceModel

    words = {"[UNK]": 0, "a": 1, "cat": 2, "dog": 3}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    config = lib.BertConfig(
        vocab_size=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    torch.manual_seed(0)
    theirs = lib.BertModel(config, add_pooling_layer=False).eval()
    theirs.save_pretrained(tmp_path)
    ours = HuggingfaceModel((16,), model=str(tmp_path), pretrained=True, length=16).eval()
    assert isinstance(ours.reads, Tokens)
    ids = ours.reads.normalize(ours.reads.encode(["a cat", "a dog a cat"]))
    alone = theirs(input_ids=torch.tensor([[1, 2]])).last_hidden_state.mean(1)
    torch.testing.assert_close(ours(ids)[:1], alone)  # filled up, it says the same
    first = HuggingfaceModel((16,), model=str(tmp_path), pretrained=True, pool="first").eval()
    torch.testing.assert_close(
        first(ids)[1:], theirs(input_ids=torch.tensor([[1, 3, 1, 2]])).last_hidden_state[:, 0]
    )
    assert ours.embedding_size == 16
