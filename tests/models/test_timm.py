"""timm's networks as backbones; without timm these tests are left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from metakd.data.picture_preprocessing import PicturePreprocessing
from metakd.errors import UserError
from metakd.models.network import Network
from metakd.models.normalization import BatchNorm2d, batchable, batchnorm_mode
from metakd.models.outside import OwnView
from metakd.models.weights import load_weights

timm = pytest.importorskip("timm", reason="needs pip install 'metakd[timm]'")

from metakd.models.timm_model import TimmModel  # noqa: E402

SMALL = "tf_efficientnet_lite0"
GIVEN = PicturePreprocessing(3, 32, 32, (0.4,) * 3, (0.2,) * 3)


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    torch.manual_seed(1)
    return timm.create_model(SMALL).eval()


@pytest.fixture
def file(theirs: torch.nn.Module, tmp_path: Path) -> Path:
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


def test_a_file_of_timm_s_becomes_the_same_embeddings(theirs: torch.nn.Module, file: Path) -> None:
    ours = TimmModel((3, 32, 32), model=SMALL, pretrained=True, checkpoint=str(file))
    assert ours.expected_statistics is None
    network = Network(ours, 5)
    load_weights(network, file, "teacher", skip_head=True)
    assert ours.expected_statistics == ((0.5,) * 3, (0.5,) * 3)
    images = torch.randn(2, 3, 32, 32)
    expected = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
    ours.eval()
    torch.testing.assert_close(ours(images), expected)
    assert ours.embedding_size == expected.shape[1] == 1280
    grey = images[:, :1]
    torch.testing.assert_close(ours(grey), ours(grey.repeat(1, 3, 1, 1)))
    assert ours.translated(ours.state_dict()).keys() == ours.state_dict().keys()


def test_batch_norm_is_ours_whatever_follows_it() -> None:
    ours = TimmModel((3, 32, 32), model=SMALL).eval()
    norms = [m for m in ours.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(m, BatchNorm2d) for m in norms)
    assert batchable(ours)
    images = torch.randn(4, 3, 32, 32)
    with batchnorm_mode(ours, "batch"):
        assert not torch.equal(ours(images), ours.requires_grad_(False)(images[:2])[:1])


def test_a_teacher_is_shown_pictures_as_timm_says() -> None:
    says = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(SMALL).to_dict())
    found = TimmModel.own_input(GIVEN, model=SMALL)
    assert found.shape == says["input_size"]
    assert (found.mean, found.std) == (says["mean"], says["std"])
    assert (found.interpolation, found.central) == ("bicubic", says["crop_pct"])
    assert TimmModel.own_input(GIVEN, model=SMALL, view=OwnView(image_size=64)).height == 64


def test_transformers_are_built_for_the_size_that_they_are_given() -> None:
    assert TimmModel((3, 32, 32), model="test_vit").embedding_size == 64


def test_a_transformer_s_weights_for_another_size_are_fitted_to_it(tmp_path: Path) -> None:
    torch.manual_seed(1)
    theirs = timm.create_model("test_vit").eval()
    ours = TimmModel((3, 64, 64), model="test_vit").eval()
    ours.load_state_dict(ours.translated(theirs.state_dict()))
    fitted = timm.create_model("test_vit", img_size=64).eval()
    filtered = timm.models.vision_transformer.checkpoint_filter_fn(theirs.state_dict(), fitted)
    fitted.load_state_dict(filtered)
    images = torch.randn(2, 3, 64, 64)
    expected = fitted.forward_head(fitted.forward_features(images), pre_logits=True)
    torch.testing.assert_close(ours(images), expected)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (None, "name a model"),
        ("tf_efficientnet_lite00", "Did you mean 'tf_efficientnet_lite0'"),
        ("resnet18.nobody", "has no weights 'nobody'"),
        ("local-dir:/nowhere", "cannot be had"),
    ],
)
def test_no_such_model(model: str | None, says: str) -> None:
    with pytest.raises(UserError, match=says):
        TimmModel((3, 32, 32), model=model)


def test_a_folder_says_what_its_model_expects(tmp_path: Path) -> None:
    config = {"architecture": SMALL, "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "crop_pct": 1.0}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = TimmModel.own_input(GIVEN, model=f"local-dir:{tmp_path}")
    assert (found.mean, found.central, found.height) == ((0.1, 0.2, 0.3), 1.0, 224)


def test_weights_that_are_not_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *a, **k: 1 / 0)
    with pytest.raises(UserError, match=r"weights of timm's resnet18 cannot be had.*FILE"):
        TimmModel((3, 32, 32), model="resnet18", pretrained=True)


def test_what_it_cannot_take() -> None:
    with pytest.raises(UserError, match="grey or colour images"):
        TimmModel((12,), model=SMALL)
