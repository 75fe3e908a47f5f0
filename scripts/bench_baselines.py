"""What `bench.py` measures against: plain loops over tasks, learn2learn, higher.

The loops do what anyone would write first, with PyTorch's own layers: they are the definition of
the work that the algorithms have to do.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from metakd.data.tasks import ExampleBatch, TaskBatch
from metakd.models.conv4 import Conv4

INNER_LR = 0.01


@dataclass(frozen=True)
class Contender:
    """Something that makes the outer gradient of one meta-batch.

    Attributes:
        run: makes it, without an update.
        parameters: what it is a gradient of, in the order of the plain network's.
    """

    run: Callable[[], None]
    parameters: list[nn.Parameter]

    def gradient(self) -> Tensor:
        """Run, and return the gradient [numbers]."""
        self.run()
        return torch.cat([given(p.grad).flatten() for p in self.parameters])


def given(gradient: Tensor | None) -> Tensor:
    """Return it.

    Raises:
        RuntimeError: there is none.
    """
    if gradient is None:
        raise RuntimeError("a parameter got no gradient")
    return gradient


def add_to(parameters: Iterable[nn.Parameter], gradients: Iterable[Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def plain_network(backbone: Conv4, outputs: int) -> nn.Sequential:
    """Conv-4 of PyTorch's own layers, with the weights and the order of layers of ours."""
    layers: list[nn.Module] = []
    for block in backbone.blocks:
        conv = copy.deepcopy(block.conv)
        norm = nn.BatchNorm2d(conv.out_channels, track_running_stats=False)
        layers += [conv, norm, nn.MaxPool2d(2), nn.ReLU()]
    torch.manual_seed(3)
    size = backbone.embedding_size
    head = nn.Linear(size, outputs) if outputs else nn.Identity()
    return nn.Sequential(nn.Sequential(*layers, nn.Flatten()), head)


# -- plain loops, a task at a time ------------------------------------------------------------


def plain_maml(network: nn.Sequential, t: TaskBatch, steps: int, first_order: bool) -> None:
    parameters = dict(network.named_parameters())
    for i in range(len(t)):
        fast = parameters
        for _ in range(steps):
            loss = F.cross_entropy(
                functional_call(network, fast, t.support[i]), t.support_targets[i]
            )
            grads = torch.autograd.grad(loss, list(fast.values()), create_graph=not first_order)
            fast = {n: p - INNER_LR * g for (n, p), g in zip(fast.items(), grads, strict=True)}
        loss = F.cross_entropy(functional_call(network, fast, t.query[i]), t.query_targets[i])
        (loss / len(t)).backward()


def plain_anil(network: nn.Sequential, t: TaskBatch, steps: int) -> None:
    body, head = network
    for i in range(len(t)):
        support, query = body(t.support[i]), body(t.query[i])
        weight, bias = head.weight, head.bias
        for _ in range(steps):
            loss = F.cross_entropy(F.linear(support, weight, bias), t.support_targets[i])
            dw, db = torch.autograd.grad(loss, (weight, bias), create_graph=True)
            weight, bias = weight - INNER_LR * dw, bias - INNER_LR * db
        loss = F.cross_entropy(F.linear(query, weight, bias), t.query_targets[i])
        (loss / len(t)).backward()


def plain_reptile(network: nn.Sequential, t: TaskBatch, steps: int) -> None:
    parameters = list(network.parameters())
    totals = [torch.zeros_like(p) for p in parameters]
    for i in range(len(t)):
        mine = copy.deepcopy(network)
        optimizer = torch.optim.Adam(mine.parameters(), INNER_LR, betas=(0.0, 0.999))
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(mine(t.support[i]), t.support_targets[i]).backward()
            optimizer.step()
        for total, before, after in zip(totals, parameters, mine.parameters(), strict=True):
            total += (before.detach() - after.detach()) / len(t)
    for parameter, total in zip(parameters, totals, strict=True):
        parameter.grad = total


def plain_protonet(network: nn.Sequential, t: TaskBatch) -> None:
    for i in range(len(t)):
        embeddings = network(torch.cat([t.support[i], t.query[i]]))
        support, query = embeddings.split([t.support.shape[1], t.query.shape[1]])
        prototypes = support.view(t.ways, t.shots, -1).mean(1)
        logits = -(query[:, None] - prototypes).square().sum(-1)
        (F.cross_entropy(logits, t.query_targets[i]) / len(t)).backward()


def plain_supervised(network: nn.Sequential, e: ExampleBatch) -> None:
    F.cross_entropy(network(e.examples), e.labels).backward()


def plain(network: nn.Sequential, loop: Callable[..., None], *arguments: object) -> Contender:
    def iteration() -> None:
        network.zero_grad()
        loop(network, *arguments)

    return Contender(iteration, list(network.parameters()))


# -- other libraries --------------------------------------------------------------------------


def learn2learn_maml(network: nn.Module, t: TaskBatch, steps: int, first_order: bool) -> Contender:
    from learn2learn import algorithms

    maml = algorithms.MAML(copy.deepcopy(network), lr=INNER_LR, first_order=first_order)

    def iteration() -> None:
        maml.zero_grad()
        for i in range(len(t)):
            learner = maml.clone()
            for _ in range(steps):
                learner.adapt(F.cross_entropy(learner(t.support[i]), t.support_targets[i]))
            (F.cross_entropy(learner(t.query[i]), t.query_targets[i]) / len(t)).backward()

    return Contender(iteration, list(maml.parameters()))


def higher_maml(network: nn.Module, t: TaskBatch, steps: int, first_order: bool) -> Contender:
    import higher

    network = copy.deepcopy(network)
    optimizer = torch.optim.SGD(network.parameters(), INNER_LR)

    def iteration() -> None:
        network.zero_grad()
        for i in range(len(t)):
            with higher.innerloop_ctx(
                network, optimizer, copy_initial_weights=False, track_higher_grads=not first_order
            ) as (mine, inner):
                for _ in range(steps):
                    inner.step(F.cross_entropy(mine(t.support[i]), t.support_targets[i]))
                loss = F.cross_entropy(mine(t.query[i]), t.query_targets[i]) / len(t)
                if not first_order:
                    loss.backward()
                else:
                    last = torch.autograd.grad(loss, list(mine.parameters(time=-1)))
                    add_to(network.parameters(), last)

    return Contender(iteration, list(network.parameters()))
