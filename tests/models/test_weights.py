"""Weights on disk: what fits is loaded, what does not is refused in one line."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from metakd.errors import UserError
from metakd.models.conv4 import Conv4
from metakd.models.network import Network
from metakd.models.normalization import has_running_statistics, set_running_statistics
from metakd.models.weights import load_weights
from metakd.models.weights_file import header

SHAPE = (1, 16, 16)


def network(width: int = 4, outputs: int = 3) -> Network:
    return Network(Conv4(SHAPE, width=width), outputs)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return set(x) == set(y) and all(torch.equal(x[k], y[k]) for k in x)


def save_weights(net: torch.nn.Module, path: Path) -> None:
    """Write a file as a run does (tests/runs tests that writer), without the run's manifest."""
    state = {k: v.clone(memory_format=torch.contiguous_format) for k, v in net.state_dict().items()}
    save_file(state, path, metadata=header(net.state_dict()))


def refused(net: torch.nn.Module, path: Path, says: str, **how: object) -> None:
    before = copy.deepcopy(net)
    with pytest.raises(UserError, match=says) as caught:
        load_weights(net, path, **how)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert same(net, before)


def test_a_round_trip(tmp_path: Path) -> None:
    first, second = network(), network()
    first.to(memory_format=torch.channels_last)
    save_weights(first, tmp_path / "été=1.safetensors")
    load_weights(second, tmp_path / "été=1.safetensors")
    assert same(first, second)


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_pt_files(tmp_path: Path, wrap: str | None) -> None:
    first, second = network(), network()
    state = first.state_dict()
    torch.save(state if wrap is None else {wrap: state, "epoch": 3}, tmp_path / "net.pt")
    load_weights(second, tmp_path / "net.pt")
    assert same(first, second)


def test_files_of_an_old_torch(tmp_path: Path) -> None:
    first, second = network(), network()
    torch.save(first.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    load_weights(second, tmp_path / "old.pt")
    assert same(first, second)
    content = (tmp_path / "old.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    refused(network(), tmp_path / "cut.pt", "is damaged")


def test_a_run_folder_holds_both(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    teacher, student = network(8), network(4)
    save_weights(teacher, tmp_path / "checkpoints" / "teacher.safetensors")
    refused(network(4), tmp_path, "holds no checkpoints/student.safetensors")
    save_weights(student, tmp_path / "checkpoints" / "student.safetensors")
    for what, saved, width in (("teacher", teacher, 8), ("student", student, 4)):
        loaded = network(width)
        load_weights(loaded, tmp_path, what)  # type: ignore[arg-type]
        assert same(loaded, saved)


def test_backbone_alone_and_network(tmp_path: Path) -> None:
    whole, bare = network(), Conv4(SHAPE, width=4)
    save_weights(whole, tmp_path / "whole.safetensors")
    save_weights(bare, tmp_path / "bare.safetensors")
    loaded = Conv4(SHAPE, width=4)
    load_weights(loaded, tmp_path / "whole.safetensors")
    assert same(loaded, whole.backbone)
    load_weights(loaded, tmp_path / "bare.safetensors")
    assert same(loaded, bare)
    refused(whole, tmp_path / "bare.safetensors", "holds a backbone alone")
    head = whole.head.weight.clone()
    load_weights(whole, tmp_path / "bare.safetensors", skip_head=True)
    assert same(whole.backbone, bare)
    assert torch.equal(whole.head.weight, head)


class Learner(torch.nn.Module):
    """Shaped as the learners whose state a run keeps as its student."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.network = net
        self.rates = torch.nn.Parameter(torch.ones(2))


def test_a_learner_around_a_network(tmp_path: Path) -> None:
    learner = Learner(network())
    save_weights(learner, tmp_path / "student.safetensors")
    bare, whole = Conv4(SHAPE, width=4), network()
    load_weights(bare, tmp_path / "student.safetensors")
    assert same(bare, learner.network.backbone)
    load_weights(whole, tmp_path / "student.safetensors")
    assert same(whole, learner.network)


def test_a_runs_manifest_is_believed(tmp_path: Path) -> None:
    file = tmp_path / "student.safetensors"
    net = network()
    save_file(net.state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "manifest.json").write_text(json.dumps({file.name: digest}))
    load_weights(network(), file)
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    refused(network(), file, "is damaged")


def test_a_head_of_other_size_only_on_request(tmp_path: Path) -> None:
    saved, loaded = network(outputs=64), network(outputs=5)
    save_weights(saved, tmp_path / "a.safetensors")
    refused(loaded, tmp_path / "a.safetensors", r"'head.weight' is \[64, 4\] there and \[5, 4\]")
    load_weights(loaded, tmp_path / "a.safetensors", skip_head=True)
    assert same(loaded.backbone, saved.backbone)


def test_another_architecture_names_the_first_mismatch(tmp_path: Path) -> None:
    save_weights(network(8), tmp_path / "a.safetensors")
    refused(
        network(4),
        tmp_path / "a.safetensors",
        r"teacher.checkpoint: .*another architecture: 'backbone.blocks.0.conv.weight' is "
        r"\[8, 1, 3, 3\] there and \[4, 1, 3, 3\]",
        what="teacher",
    )
    save_weights(Network(Conv4(SHAPE, width=4, norm="group"), 3), tmp_path / "b.safetensors")
    refused(network(4), tmp_path / "b.safetensors", "the network has no 'backbone.blocks.0.conv.b")
    refused(
        Network(Conv4(SHAPE, width=8, norm="none"), 3),
        tmp_path / "a.safetensors",
        "it has no 'backbone.blocks.0.conv.bias'",
    )


@pytest.mark.parametrize("tracked", [True, False])
def test_the_file_decides_on_running_statistics(tmp_path: Path, tracked: bool) -> None:
    saved, loaded = network(), network()
    set_running_statistics(saved, tracked)
    set_running_statistics(loaded, not tracked)
    save_weights(saved, tmp_path / "a.safetensors")
    load_weights(loaded, tmp_path / "a.safetensors")
    assert same(saved, loaded)
    assert has_running_statistics(loaded) == tracked


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_files(tmp_path: Path, kind: str, damage: str) -> None:
    file = tmp_path / f"net.{kind}"
    if kind == "pt":
        torch.save(network().state_dict(), file)
    else:
        save_weights(network(), file)
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "empty":
        content = bytearray()
    elif kind == "pt":
        # A bit of the first convolution's weights.
        weights = network().state_dict()["backbone.blocks.1.conv.weight"]
        state = torch.load(file, weights_only=True)
        raw = state["backbone.blocks.1.conv.weight"].numpy().tobytes()
        assert weights.numel() * 4 == len(raw)
        content[content.index(raw) + 5] ^= 1
    else:
        content[-5] ^= 1
    file.write_bytes(content)
    refused(network(), file, "is damaged")


def test_other_bad_files(tmp_path: Path) -> None:
    save_weights(network(), tmp_path / "student.safetensors")
    refused(network(), tmp_path / "studnet.safetensors", "Did you mean 'student.safetensors'")
    refused(network(), tmp_path / "no" / "where.pt", "there is no")
    (tmp_path / "a.bin").write_bytes(b"x")
    refused(network(), tmp_path / "a.bin", "neither a .safetensors nor a .pt")
    torch.save(network(), tmp_path / "whole.pt")
    refused(network(), tmp_path / "whole.pt", "more than weights")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    refused(network(), tmp_path / "other.pt", "no state dict")


@pytest.mark.parametrize(
    "lost", [("blocks.1.norm.running_mean",), (".running_mean", ".running_var")]
)
def test_some_running_statistics_are_not_enough(tmp_path: Path, lost: tuple[str, ...]) -> None:
    state = {k: v for k, v in network().state_dict().items() if not k.endswith(lost)}
    save_file(state, tmp_path / "some.safetensors")
    refused(network(), tmp_path / "some.safetensors", r"it has no 'backbone.*running_mean'")
