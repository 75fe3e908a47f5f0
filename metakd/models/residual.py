"""What the residual networks share: the basic block, and their initial weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from metakd.models.normalization import make_norm

__all__ = ["BasicBlock", "he_initialise"]


def he_initialise(module: nn.Module, slope: float = 0.0) -> None:
    """Draw every convolution's weights from He's normal distribution (He et al. 2015).

    The variance is 2 over the fan out: k² times the output channels that an input channel reaches.
    In a convolution of g groups these are 1/g of all, so a depthwise filter has a fan of k².

    Args:
        module: the network; torch's default generator decides the numbers.
        slope: negative slope of the (leaky) ReLU that follows.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            # torch takes all output channels for the fan, whatever the groups are.
            for group in layer.weight.chunk(layer.groups):
                nn.init.kaiming_normal_(group, a=slope, mode="fan_out", nonlinearity="leaky_relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, 1x1 where the shape changes (He et al. 2016).

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        stride: of the first convolution and of the shortcut.
        norm: `batch`, `group`, `layer` or `none`.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str) -> None:
        super().__init__()
        bias = norm != "batch"
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)
        self.norm1 = make_norm(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=bias)
        self.norm2 = make_norm(norm, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=bias), make_norm(norm, outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, outputs, height / stride, width / stride]."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
