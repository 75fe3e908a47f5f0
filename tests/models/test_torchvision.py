"""torchvision classifiers as backbones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from metakd.errors import UserError
from metakd.models.network import Network
from metakd.models.normalization import BatchNorm2d, batchable, batchnorm_mode
from metakd.models.torchvision_model import TorchvisionModel
from metakd.models.weights import load_weights


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 512),
        ("mobilenet_v3_small", 1024),
        ("squeezenet1_1", 512),
    ],
)
def test_embeddings(name: str, size: int) -> None:
    net = TorchvisionModel((1, 32, 32), model=name).eval()
    assert net.embedding_size == size
    grey = torch.randn(2, 1, 32, 32)
    embeddings = net(grey)
    assert embeddings.shape == (2, size)
    torch.testing.assert_close(net(grey.repeat(1, 3, 1, 1)), embeddings)


def test_batch_norm_is_ours_and_the_rest_is_theirs() -> None:
    torch.manual_seed(0)
    ours = TorchvisionModel((3, 32, 32), model="resnet18").eval()
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18().eval()
    assert all(type(m) is not nn.BatchNorm2d for m in ours.modules())
    assert sum(isinstance(m, BatchNorm2d) for m in ours.modules()) == 20
    assert batchable(ours)
    x = torch.randn(2, 3, 32, 32)
    theirs.fc = nn.Identity()
    assert torch.equal(ours(x), theirs(x))
    with batchnorm_mode(ours, "batch"):
        assert not torch.equal(ours(x), theirs(x))


def test_building_leaves_running_statistics_alone() -> None:
    net = TorchvisionModel((3, 32, 32), model="resnet18")
    assert net.training
    assert all(m.num_batches_tracked == 0 for m in net.modules() if isinstance(m, BatchNorm2d))


@pytest.mark.parametrize(
    ("shape", "model", "says"),
    [
        ((3, 32, 32), "resnet19", "Did you mean 'resnet1"),
        ((3, 32, 32), None, "model=resnet18"),
        ((2, 32, 32), "resnet18", "grey or colour"),
        ((3, 32, 32), "vit_b_16", "cannot take images of 32x32"),
    ],
)
def test_unusable(shape: tuple[int, ...], model: str | None, says: str) -> None:
    with pytest.raises(UserError, match=says):
        TorchvisionModel(shape, model=model)


def test_pretrained_weights_that_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("<urlopen error no network>")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"no network.*pretrained=false") as caught:
        TorchvisionModel((3, 32, 32), model="resnet18", pretrained=True)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_from_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(5)
    weights = torchvision.models.squeezenet1_1().state_dict()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: weights
    )
    net = TorchvisionModel((3, 64, 64), model="squeezenet1_1", pretrained=True)
    assert torch.equal(net.model.features[0].weight, weights["features.0.weight"])


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_weights_in_torch_s_folder_are_what_pretrained_reads(torch_home: Path) -> None:
    net = TorchvisionModel((3, 32, 32), model="resnet18", pretrained=True).eval()
    theirs = torch.load(torch_home / "hub/checkpoints/resnet18-f37072fd.pth", weights_only=True)
    assert torch.equal(net.model.layer4[1].bn2.weight, theirs["layer4.1.bn2.weight"])
    assert net.expected_statistics == IMAGENET
    assert TorchvisionModel((3, 32, 32), model="resnet18").expected_statistics is None


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True], ids=["today's", "without counters"])
def test_a_file_of_torchvision_s_own_is_a_checkpoint(torch_home: Path, old: bool) -> None:
    whole = torchvision.models.resnet18().eval()
    file = torch_home / "hub/checkpoints/resnet18-f37072fd.pth"
    weights = torch.load(file, weights_only=True)
    whole.load_state_dict(weights)
    if old:
        torch.save({k: v for k, v in weights.items() if "num_batches" not in k}, file)
    net = TorchvisionModel((3, 32, 32), model="resnet18").eval()
    load_weights(net, file)
    assert net.expected_statistics == IMAGENET
    network = Network(TorchvisionModel((3, 32, 32), model="resnet18"), 7).eval()
    head = network.head.weight.clone()
    load_weights(network, file, "teacher", skip_head=True)
    assert torch.equal(network.head.weight, head)
    whole.fc = nn.Identity()
    x = torch.randn(2, 3, 32, 32)
    for backbone in (net, network.backbone):
        torch.testing.assert_close(backbone(x), whole(x))


def test_a_file_of_another_classifier_is_refused(torch_home: Path) -> None:
    file = torch_home / "hub/checkpoints/resnet18-f37072fd.pth"
    with pytest.raises(UserError, match="another architecture"):
        load_weights(TorchvisionModel((3, 32, 32), model="resnet34"), file)
