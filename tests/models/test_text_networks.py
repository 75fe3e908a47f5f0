"""Networks for texts: values worked out by hand, and padding that changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from metakd.errors import UserError
from metakd.models.text_bag import TextBag
from metakd.models.text_cnn import TextCNN
from metakd.models.text_network import TextNetwork, masked_mean
from metakd.models.transformer import Transformer, sinusoids

SHAPE = (16,)


def small(kind: type[TextNetwork]) -> TextNetwork:
    torch.manual_seed(0)
    if kind is TextBag:
        return TextBag(SHAPE, width=6, vector=4, buckets=300, length=16)
    if kind is TextCNN:
        return TextCNN(SHAPE, width=3, vector=4, windows=(1, 3), vocabulary=300, length=16)
    return Transformer(SHAPE, width=8, depth=2, heads=2, vocabulary=300, length=16)


@pytest.mark.parametrize("kind", [TextBag, TextCNN, Transformer])
def test_padding_and_the_other_texts_change_nothing(kind: type[TextNetwork]) -> None:
    net = small(kind).double().eval()
    texts = [[5, 9, 200], [7] * 11, [300]]
    alone = [net(torch.tensor([ids])) for ids in texts]
    padded = torch.zeros(3, 16, dtype=torch.int64)
    for row, ids in zip(padded, texts, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    together = net(padded)
    assert together.shape == (3, net.embedding_size)
    assert torch.allclose(together, torch.cat(alone), rtol=1e-12, atol=1e-12)
    assert torch.equal(net(padded.double()), together)
    assert bool(net(torch.zeros(2, 16)).isfinite().all())  # as costs are measured on


@pytest.mark.parametrize("kind", [TextCNN, Transformer])
def test_order_counts_but_not_in_a_bag(kind: type[TextNetwork]) -> None:
    ids, turned = torch.tensor([[5, 9, 200]]), torch.tensor([[200, 9, 5]])
    assert not torch.allclose(small(kind).eval()(ids), small(kind).eval()(turned))
    assert torch.allclose(small(TextBag)(ids), small(TextBag)(turned), atol=1e-6)


def test_mean_over_a_text_by_hand() -> None:
    vectors = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]]])
    assert masked_mean(vectors, torch.tensor([[True, True, False]])).tolist() == [[2.0, 4.0]]
    assert masked_mean(vectors, torch.tensor([[False] * 3])).tolist() == [[0.0, 0.0]]


def test_a_bag_by_hand() -> None:
    net = small(TextBag)
    table = net.vectors.weight
    mean = (table[5] + table[9] + table[9]) / 3
    expected = net.linear.weight @ mean + net.linear.bias  # type: ignore[operator,union-attr]
    assert torch.allclose(net(torch.tensor([[5, 9, 9, 0]]))[0], expected, atol=1e-6)


def test_sinusoids_by_hand() -> None:
    found = sinusoids(3, 4)
    assert found[0].tolist() == [0.0, 1.0, 0.0, 1.0]
    expected = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    assert found[2].tolist() == pytest.approx(expected, rel=1e-6)


def test_a_convolution_by_hand() -> None:
    net = TextCNN(SHAPE, width=1, vector=1, windows=(3,), vocabulary=300, length=16).double()
    with torch.no_grad():
        net.vectors.weight[:] = torch.arange(301.0).unsqueeze(1)
        net.convolutions[0].weight[:] = torch.tensor([[[1.0, 10.0, 100.0]]])
        net.convolutions[0].bias.fill_(-50.0)
    # Windows over 0|2 3|0: 10·2 + 100·3 and 2 + 10·3; the bias is no text.
    assert net(torch.tensor([[2, 3, 0, 0, 0]])).tolist() == [[320.0 - 50.0]]
    assert net(torch.tensor([[1, 0, 0, 0, 0]])).tolist() == [[0.0]]


def test_a_layer_is_torchs_own_pre_norm_encoder_layer() -> None:
    net = small(Transformer).double().eval()
    ours = net.layers[0]  # type: ignore[index]
    theirs = nn.TransformerEncoderLayer(
        8, 2, 32, dropout=0.0, activation=F.gelu, batch_first=True, norm_first=True
    ).double()
    pairs = {
        "self_attn.in_proj_weight": ours.query_key_value.weight,
        "self_attn.in_proj_bias": ours.query_key_value.bias,
        "self_attn.out_proj.weight": ours.out.weight,
        "self_attn.out_proj.bias": ours.out.bias,
        "linear1.weight": ours.up.weight,
        "linear1.bias": ours.up.bias,
        "linear2.weight": ours.down.weight,
        "linear2.bias": ours.down.bias,
        "norm1.weight": ours.norm1.norm.weight,
        "norm1.bias": ours.norm1.norm.bias,
        "norm2.weight": ours.norm2.norm.weight,
        "norm2.bias": ours.norm2.norm.bias,
    }
    theirs.load_state_dict(pairs)
    x, mask = torch.randn(3, 5, 8).double(), torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    mask = mask[[0, 1, 1]]
    found, expected = ours(x, mask), theirs(x, src_key_padding_mask=~mask)
    assert torch.allclose(found[mask], expected[mask], rtol=1e-10)


@pytest.mark.parametrize("kind", [TextCNN, Transformer])
def test_tokens_are_those_that_were_asked_for(kind: type[TextNetwork]) -> None:
    options = {"vocabulary": 300, "length": 16}
    found = [kind(SHAPE, tokens=t, **options).reads.reads for t in ("bpe", "wordpiece")]  # type: ignore[call-arg]
    assert found == ["tokens", "wordpieces"]


def test_dropout_is_used() -> None:
    ids = torch.tensor([[5, 9, 200]])
    for kind in (TextCNN, Transformer):
        options = {"vocabulary": 300, "length": 16}
        net = kind(SHAPE, width=8, dropout=0.5, **options)  # type: ignore[arg-type]
        assert not torch.equal(net(ids), net(ids))
        net.eval()
        assert torch.equal(net(ids), net(ids))


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (TextBag, {"buckets": 0}, "options.buckets=0"),
        (TextBag, {"length": 4}, "options.length=4"),
        (TextCNN, {"windows": [2]}, r"options.windows=\[2\]: give odd"),
        (Transformer, {"width": 12, "heads": 4}, "give a multiple of 8"),
        (Transformer, {"vocabulary": 100}, "options.vocabulary=100"),
        (Transformer, {"heads": 0}, "options.heads=0"),
        (Transformer, {"tokens": "wordpeice"}, "Did you mean 'wordpiece'"),
    ],
)
def test_refused(kind: type[TextNetwork], settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        kind(SHAPE, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [TextBag, TextCNN, Transformer])
def test_bfloat16(kind: type[TextNetwork]) -> None:
    """Autocast leaves ids as they are: number 300 is not the one that bfloat16 rounds it to."""
    net = small(kind)
    ids = torch.tensor([[299, 300, 257]])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net(ids)
    assert torch.allclose(rounded.float(), net(ids), rtol=0.05, atol=0.05)
