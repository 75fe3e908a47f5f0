import pytest

from metakd.compression.pruning import kept_channels
from metakd.compression.strategy import LayerChoice, Strategy


def test_plain_form() -> None:
    strategy = Strategy({"conv": LayerChoice(0.25, 8)}).with_keep({"last": 0.5})
    assert strategy.plain() == {
        "conv": {"keep": 0.25, "bits": 8},
        "last": {"keep": 0.5, "bits": 32},
    }
    assert Strategy.from_plain(strategy.plain()) == strategy
    assert strategy.of("elsewhere") == LayerChoice(1.0, 32)
    assert strategy.prunes
    assert strategy.quantizes
    assert not Strategy().with_bits(8, ["conv"]).prunes
    assert not Strategy().with_keep({"conv": 0.5}).quantizes


@pytest.mark.parametrize(
    "content",
    [[], {"a": 1}, {"a": {"kept": 0.5}}, {"a": {"keep": 0}}, {"a": {"keep": 1.5}},
     {"a": {"bits": 9}}, {"a": {"bits": True}}, {"a": {"keep": "0.5"}}],
)  # fmt: skip
def test_other_content_is_refused(content: object) -> None:
    with pytest.raises(ValueError, match=r"strateg|keep|bits"):
        Strategy.from_plain(content)


@pytest.mark.parametrize(
    ("channels", "keep", "parts", "kept"),
    [(8, 0.5, 1, 4), (8, 1e-6, 1, 1), (8, 0.3, 1, 2), (8, 0.3, 4, 4), (12, 0.5, 3, 6)],
)
def test_kept_channels(channels: int, keep: float, parts: int, kept: int) -> None:
    assert kept_channels(channels, keep, parts) == kept
