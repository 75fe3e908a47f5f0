"""Every architecture that the config offers, built from its YAML as the pipeline does."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import metakd
from metakd.config.schema import ArchitectureConfig
from metakd.errors import UserError
from metakd.models.normalization import batchable
from metakd.models.text_network import TextNetwork
from metakd.registry import build, resolve

FOLDER = Path(metakd.__file__).parents[1] / "conf" / "architecture"
FILES = sorted(FOLDER.glob("*.yaml"))
OUTSIDE = [file for file in FILES if "outside: true" in file.read_text(encoding="utf-8")]
"""They build a network of another library, which is to be named; each has tests of its own."""
QUICK: dict[str, dict[str, int]] = {
    "resnet12": {"width": 16},
    "wrn": {"width": 1},
    "resnet56": {"width": 2},
    "resnet110": {"width": 2},
    "resnet8x4": {"width": 2},
    "resnet32x4": {"width": 2},
    "vgg8": {"width": 2},
    "vgg13": {"width": 2},
    "shufflenet_v1": {"width": 120},
    "mobilenet_v2": {"width": 4},
}
TEXTS = ("text_bag", "text_cnn", "transformer")


def built(file: Path, shape: tuple[int, ...]) -> nn.Module:
    content = OmegaConf.load(file)
    content.pop("brings", None)  # no setting
    config = OmegaConf.merge(OmegaConf.structured(ArchitectureConfig), content)
    settings = OmegaConf.to_container(config)
    assert OmegaConf.is_missing(config, "name") or config.name == file.stem
    cls = resolve(settings["_target_"], "metakd.models")
    if file.stem in QUICK:
        settings |= {"widths": None, **QUICK[file.stem]}
    return build(cls, shape, settings=settings, options=settings["options"])


def test_the_promised_ones_are_there() -> None:
    names = {"conv4", "cnn", "resnet8", "resnet12", "wrn", "mlp", "torchvision", *TEXTS}
    names |= {"resnet20", "resnet56", "resnet8x4", "resnet32x4", "vgg8", "vgg13"}
    names |= {
        "shufflenet_v1",
        "mobilenet_v2",
        "mobilenet_small",
        "timm",
        "open_clip",
        "onnx",
        "huggingface",
    }
    assert names <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_file_has_a_line_for_the_list(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) <= 100


@pytest.mark.parametrize("file", OUTSIDE, ids=lambda file: file.stem)
def test_one_from_elsewhere_says_what_it_lacks(file: Path) -> None:
    lacks = rf"{file.stem}: name |needs \w+, which is not installed: .*'metakd\[{file.stem}\]'"
    with pytest.raises(UserError, match=lacks):
        built(file, (3, 32, 32))


@pytest.mark.parametrize(
    "file", [file for file in FILES if file not in OUTSIDE], ids=lambda file: file.stem
)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=["grey", "colour"])
def test_embeddings_copies_and_the_seed(file: Path, shape: tuple[int, ...]) -> None:
    torch.manual_seed(7)
    if file.stem in TEXTS:
        with pytest.raises(UserError, match="reads texts"):
            built(file, shape)
        shape = (16,)
    net = built(file, shape)
    torch.manual_seed(7)
    again = built(file, shape)
    assert list(net.state_dict()) == list(again.state_dict())
    assert all(
        torch.equal(a, b)
        for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert batchable(net)
    assert isinstance(net, TextNetwork) == (file.stem in TEXTS)
    images = torch.randint(1, 256, (2, *shape)) if file.stem in TEXTS else torch.randn(2, *shape)
    assert net(images).shape == (2, net.embedding_size)
    net.eval()
    assert torch.equal(copy.deepcopy(net)(images), net(images))
