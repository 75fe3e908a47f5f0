"""MAML's meta-gradient against finite differences and an independent loop, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metakd.adaptation import task_execution
from metakd.algorithms.maml import MAML
from metakd.data.tasks import TaskBatch
from metakd.distillation.embedding import EmbeddingMatch
from metakd.distillation.kd import KD
from metakd.distillation.objective import Objective, TaskAnswers
from metakd.errors import UserError
from metakd.registry import build

EXECUTIONS = ["loop", "threads", "batched"]
BATCHNORM = ["transductive", "inductive"]
STEPS, RATE, TAU, WEIGHT = 2, 0.3, 3.0, 0.7

pytestmark = pytest.mark.usefixtures("two_workers")

Values = dict[str, Tensor]


def reference_forward(v: Values, x: Tensor, statistics: list | None = None) -> Tensor:
    """The tiny network written out by hand; `statistics` are those of another batch, or None."""
    for i in ("1", "2"):
        x = F.conv2d(x, v[f"backbone.conv{i}.weight"], v[f"backbone.conv{i}.bias"], padding=1)
        mean = x.mean((0, 2, 3), keepdim=True)
        var = (x - mean).square().mean((0, 2, 3), keepdim=True)
        if statistics is not None:
            if len(statistics) < 2:
                statistics.append((mean, var))
            else:
                mean, var = statistics[int(i) - 1]
        x = (x - mean) / (var + 1e-5).sqrt()
        weight, bias = v[f"backbone.norm{i}.weight"], v[f"backbone.norm{i}.bias"]
        x = torch.tanh(x * weight[:, None, None] + bias[:, None, None])
        x = F.avg_pool2d(x, 2)
    return F.linear(x.flatten(1), v["head.weight"], v["head.bias"])


def reference_loss(logits: Tensor, targets: Tensor, teacher: Tensor | None) -> Tensor:
    loss = -logits.log_softmax(-1)[torch.arange(len(targets)), targets].mean()
    if teacher is None:
        return loss
    p = (teacher / TAU).softmax(-1)
    kl = (p * (p.log() - (logits / TAU).log_softmax(-1))).sum(-1).mean()
    return loss + WEIGHT * TAU**2 * kl


def reference_gradient(
    network: nn.Module,
    tasks: TaskBatch,
    answers: TaskAnswers | None,
    batchnorm: str,
    detach: bool = False,
) -> Values:
    """Meta-gradient by a straight loop: create_graph all the way, backward once."""
    values = {n: p.detach().clone().requires_grad_() for n, p in network.named_parameters()}
    total = torch.zeros(())
    for i in range(len(tasks)):
        support = None if answers is None or answers.support is None else answers.support.logits[i]
        query = None if answers is None or answers.query is None else answers.query.logits[i]
        fast = values
        for _ in range(STEPS):
            logits = reference_forward(fast, tasks.support[i])
            loss = reference_loss(logits, tasks.support_targets[i], support)
            grads = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
            if detach:
                grads = [g.detach() for g in grads]
            fast = {n: v - RATE * g for (n, v), g in zip(fast.items(), grads, strict=True)}
        statistics: list | None = None
        if batchnorm == "inductive":
            statistics = []
            reference_forward(fast, tasks.support[i], statistics)
        logits = reference_forward(fast, tasks.query[i], statistics)
        total = total + reference_loss(logits, tasks.query_targets[i], query)
    (total / len(tasks)).backward()
    return {n: v.grad for n, v in values.items()}


def learner(backbone: nn.Module, **settings: object) -> MAML:
    return build(MAML, backbone, 3, options={"inner_lr": RATE, "inner_steps": STEPS, **settings})


def objective_for(on: str) -> Objective:
    if on == "none":
        return Objective()
    return KD(12, 7, kd_weight=WEIGHT, temperature=TAU)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("batchnorm", BATCHNORM)
@pytest.mark.parametrize("on", ["none", "query", "support", "both"])
@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
def test_equals_an_independent_loop(
    execution: str,
    batchnorm: str,
    on: str,
    first_order: bool,
    conv: Callable,
    image_tasks: Callable,
    answers_to: Callable,
    gradient_of: Callable,
) -> None:
    """First order is the same loop with the inner gradients detached."""
    tasks = image_tasks()
    answers = None if on == "none" else answers_to(tasks, on)
    maml = learner(conv(), batchnorm=batchnorm, execution=execution, first_order=first_order)
    expected = reference_gradient(maml.network, tasks, answers, batchnorm, detach=first_order)
    maml.train()
    maml.accumulate(tasks, objective_for(on), answers)
    for name, gradient in gradient_of(maml.network).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("batchnorm", BATCHNORM)
def test_equals_finite_differences(
    execution: str,
    batchnorm: str,
    conv: Callable,
    image_tasks: Callable,
    answers_to: Callable,
    gradient_of: Callable,
) -> None:
    """Also for the projection that a distillation learns, in the inner and the outer loss."""
    tasks = image_tasks(tasks=2)
    answers = answers_to(tasks, "both")
    objective = EmbeddingMatch(12, 7, torch.randn(7), kd_weight=0.5)
    maml = learner(conv(), batchnorm=batchnorm, execution=execution)
    maml.accumulate(tasks, objective, answers)
    both = nn.ModuleList([maml, objective])
    gradients = gradient_of(both)
    generator = torch.Generator().manual_seed(1)
    eps = 1e-5
    for name, parameter in both.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator)
        losses = []
        for sign in (1, -1):
            moved = copy.deepcopy(both)
            with torch.no_grad():
                moved.get_parameter(name).add_(direction, alpha=sign * eps)
            losses.append(moved[0].accumulate(tasks, moved[1], answers)["loss"])
        slope = (losses[0] - losses[1]) / (2 * eps)
        torch.testing.assert_close(
            (gradients[name] * direction).sum(), slope, rtol=1e-6, atol=1e-8, msg=name
        )


def test_second_order_terms_are_there(
    conv: Callable, image_tasks: Callable, gradient_of: Callable
) -> None:
    backbone, tasks = conv(), image_tasks()
    found = []
    for first_order in (False, True):
        torch.manual_seed(3)
        maml = learner(copy.deepcopy(backbone), first_order=first_order)
        maml.accumulate(tasks, Objective(), None)
        found.append(gradient_of(maml)["network.backbone.conv2.weight"])
    assert (found[0] - found[1]).norm() > 0.01 * found[0].norm()


def test_first_order_is_the_gradient_at_the_adapted_parameters(
    mlp: Callable, gradient_of: Callable
) -> None:
    maml = build(
        MAML,
        mlp(),
        1,
        options={"inner_lr": 0.1, "inner_steps": 1, "first_order": True, "execution": "loop"},
    )
    x, y = torch.randn(1, 4, 1), torch.randn(1, 4, 1)
    qx, qy = torch.randn(1, 4, 1), torch.randn(1, 4, 1)
    tasks = TaskBatch(x, y, qx, qy, 1, 4, 4)
    adapted = copy.deepcopy(maml.network)
    F.mse_loss(adapted(x[0]).logits, y[0]).backward()
    with torch.no_grad():
        for p in adapted.parameters():
            p -= 0.1 * p.grad
            p.grad = None
    F.mse_loss(adapted(qx[0]).logits, qy[0]).backward()
    terms = maml.accumulate(tasks, Objective(), None)
    assert set(terms) == {"loss", "loss/ce"}
    for name, gradient in gradient_of(maml.network).items():
        torch.testing.assert_close(gradient, adapted.get_parameter(name).grad)


def test_threads_are_bitwise_the_loop(
    conv: Callable, image_tasks: Callable, gradient_of: Callable
) -> None:
    tasks, backbone = image_tasks(tasks=5), conv()
    found = []
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for execution in ("loop", "threads"):
            torch.manual_seed(0)
            maml = learner(copy.deepcopy(backbone), execution=execution).float()
            maml.accumulate(_float32(tasks), Objective(), None)
            found.append(gradient_of(maml))
    finally:
        torch.set_num_threads(before)
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_a_worker_computes_with_one_thread() -> None:
    """Whatever number the process has before the pool starts and after."""

    def threads(ones: Tensor, _: int) -> int:
        assert (ones @ ones).sum() == 8
        return torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(task_execution.in_order(lambda: torch.ones(2, 2), threads, 4)) == [1] * 4
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_gradients_add_up(conv: Callable, image_tasks: Callable, gradient_of: Callable) -> None:
    maml, tasks = learner(conv()), image_tasks()
    maml.accumulate(tasks, Objective(), None)
    once = gradient_of(maml)
    maml.accumulate(tasks, Objective(), None)
    for name, gradient in gradient_of(maml).items():
        torch.testing.assert_close(gradient, 2 * once[name])


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("batchnorm", BATCHNORM)
def test_predict_leaves_no_trace(
    execution: str, batchnorm: str, conv: Callable, image_tasks: Callable
) -> None:
    maml, tasks = learner(conv(), execution=execution), image_tasks(ways=3)
    before = copy.deepcopy(maml.state_dict())
    first = maml.predict(tasks, (0, 1, 4), batchnorm)
    maml.accumulate(tasks, Objective(), None)
    assert first.shape == (3, 3, 6, 3)
    assert not first.requires_grad
    for name, value in maml.state_dict().items():
        assert torch.equal(value, before[name]), name
    torch.testing.assert_close(maml.predict(tasks, (4,), batchnorm)[0], first[2])
    torch.testing.assert_close(maml.eval().predict(tasks, (4,), batchnorm)[0], first[2])


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("batchnorm", BATCHNORM)
def test_predict_equals_an_independent_loop(
    execution: str, batchnorm: str, conv: Callable, image_tasks: Callable
) -> None:
    maml, tasks = learner(conv(), execution=execution), image_tasks()
    found = maml.predict(tasks, (2,), batchnorm)[0]
    for i in range(len(tasks)):
        fast = dict(maml.network.named_parameters())
        for _ in range(2):
            loss = reference_loss(
                reference_forward(fast, tasks.support[i]), tasks.support_targets[i], None
            )
            grads = torch.autograd.grad(loss, list(fast.values()))
            fast = {n: v - RATE * g for (n, v), g in zip(fast.items(), grads, strict=True)}
        statistics: list | None = None
        if batchnorm == "inductive":
            statistics = []
            reference_forward(fast, tasks.support[i], statistics)
        torch.testing.assert_close(found[i], reference_forward(fast, tasks.query[i], statistics))


def test_inductive_predictions_do_not_depend_on_other_queries(
    conv: Callable, image_tasks: Callable
) -> None:
    maml, tasks = learner(conv()), image_tasks()
    alone = TaskBatch(
        tasks.support, tasks.support_targets, tasks.query[:, :1], tasks.query_targets[:, :1],
        tasks.ways, tasks.shots, 1,
    )  # fmt: skip
    for mode, same in (("inductive", True), ("transductive", False)):
        together = maml.predict(tasks, (1,), mode)[:, :, :1]
        assert torch.allclose(maml.predict(alone, (1,), mode), together) == same


def test_modes_are_one_without_batchnorm(conv: Callable, image_tasks: Callable) -> None:
    maml, tasks = learner(conv(batchnorm=False)), image_tasks()
    assert torch.equal(
        maml.predict(tasks, (2,), "inductive"), maml.predict(tasks, (2,), "transductive")
    )


def test_permuted_classes_permute_predictions(conv: Callable, image_tasks: Callable) -> None:
    maml, tasks = learner(conv()), image_tasks()
    found = maml.predict(tasks, (3,))
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        maml.network.head.weight.copy_(maml.network.head.weight[order].clone())
        maml.network.head.bias.copy_(maml.network.head.bias[order].clone())
    renamed = copy.copy(tasks)
    object.__setattr__(renamed, "support_targets", order.argsort()[tasks.support_targets])
    torch.testing.assert_close(maml.predict(renamed, (3,)), found[..., order])


def test_learns_sinusoids(mlp: Callable) -> None:
    torch.manual_seed(0)
    maml = build(
        MAML, mlp(1, 32), 1, options={"inner_lr": 0.02, "inner_steps": 1, "execution": "auto"}
    )
    optimizer = torch.optim.Adam(maml.parameters(), 3e-3)

    def tasks(seed: int, count: int) -> TaskBatch:
        g = torch.Generator().manual_seed(seed)
        amplitude = 0.1 + 4.9 * torch.rand(count, 1, 1, generator=g)
        phase = torch.pi * torch.rand(count, 1, 1, generator=g)
        x = 10 * torch.rand(count, 20, 1, generator=g) - 5
        y = amplitude * torch.sin(x + phase)
        return TaskBatch(x[:, :10], y[:, :10], x[:, 10:], y[:, 10:], 1, 10, 10)

    def error() -> tuple[float, float]:
        test = tasks(999, 100)
        before, after = maml.predict(test, (0, 1))
        return tuple(float((z - test.query_targets).square().mean()) for z in (before, after))

    untrained = error()[1]
    for step in range(300):
        optimizer.zero_grad()
        maml.accumulate(tasks(step, 25), Objective(), None)
        optimizer.step()
    before, after = error()
    assert after < 0.75 * untrained
    assert after < 0.75 * before


def test_bfloat16_follows_float32(
    conv: Callable, image_tasks: Callable, gradient_of: Callable
) -> None:
    tasks, backbone = _float32(image_tasks(tasks=4)), conv().float()
    found = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        maml = learner(copy.deepcopy(backbone), inner_precision=precision).float()
        maml.accumulate(tasks, Objective(), None)
        found.append(torch.cat([g.flatten() for g in gradient_of(maml).values()]))
    assert found[1].dtype == torch.float32
    assert F.cosine_similarity(found[0], found[1], dim=0) > 0.98


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"execution": "thread"}, "Did you mean 'threads'"),
        ({"batchnorm": "inductiv"}, "Did you mean 'inductive'"),
        ({"inner_precision": "bfloat"}, "Did you mean 'bfloat16'"),
        ({"inner_steps": 0}, "at least 1 step"),
    ],
)
def test_refuses(settings: dict, words: str, conv: Callable) -> None:
    with pytest.raises(UserError, match=words):
        learner(conv(), **settings)


def test_refuses_batching_what_would_be_wrong(conv: Callable) -> None:
    backbone = nn.Sequential(conv(), nn.LayerNorm(12))
    backbone.embedding_size = 12
    with pytest.raises(UserError, match="execution=loop"):
        learner(backbone, execution="batched")


def test_refuses_more_ways_than_outputs(conv: Callable, image_tasks: Callable) -> None:
    with pytest.raises(UserError, match="4 ways"):
        learner(conv()).predict(image_tasks(ways=4), (1,))


def _float32(tasks: TaskBatch) -> TaskBatch:
    return TaskBatch(
        tasks.support.float(),
        tasks.support_targets,
        tasks.query.float(),
        tasks.query_targets,
        tasks.ways,
        tasks.shots,
        tasks.queries,
    )
