"""Teachers of several networks and generations are refused where nothing trains them so."""

from __future__ import annotations

import pytest

from metakd.config.checks import check
from metakd.config.compose import compose
from metakd.errors import UserError

SEEDS = "teacher.seeds=[0,1]"
FURTHER = "teacher.checkpoint=conf/config.yaml teacher.further_checkpoints"
REFUSED = {
    "student.seeds=[0,1]": "it is about the teacher",
    "teacher.seeds=[3]": "type teacher.seeds=[0,1], or teacher.seed=3",
    "teacher.seeds=[1,1]": "two different seeds",
    f"{SEEDS} pretrain=none teacher.checkpoint=conf/config.yaml": "not trained here",
    f"{SEEDS} teacher.checkpoint=conf/config.yaml": "the teacher is that of teacher.checkpoint",
    f"{SEEDS} teacher=torchvision teacher.pretrained=true": "the weights of others",
    f"{SEEDS} dataset=sinusoid distill=kd": "adapts or learns",
    f"{SEEDS} distill=kd distill.teacher_mode=co_meta": "type teacher.seed=0",
    f"{SEEDS} algorithm=adversarial": "adapts or learns",
    "student.further_checkpoints=[a]": "it is about the teacher",
    "teacher.further_checkpoints=[a,b]": "type teacher.checkpoint=a and the rest here",
    f"{FURTHER}=[conf/no]": "there is no such file",
    f"{FURTHER}=[conf/config.yaml]": "is named twice",
    f"{FURTHER}=[conf/dataset] dataset=sinusoid distill=kd": "is regression",
    f"{FURTHER}=[conf/dataset] teacher=torchvision teacher.pretrained=true": "weights of others",
    f"{FURTHER}=[conf/dataset] distill=kd distill.teacher_mode=co_meta": "is one network",
    "pretrain.generations=0": "at least 1",
    "pretrain.generations=2 pretrain=none teacher.checkpoint=conf/config.yaml": "not trained here",
    "pretrain.generations=2 dataset=sinusoid distill=kd": "type pretrain.generations=1",
    f"{SEEDS} algorithm=protonet distill=kd distill.ensemble=support_accuracy": "train_shots=2",
    f"{SEEDS} algorithm=protonet distill=kd distill.teacher_mode=head task.train_shots=2 "
    "distill.ensemble=support_accuracy": "type distill.ensemble=average",
    "distill.ensemble=mean": "average",
    "distill.generations=2 algorithm=maml": "type distill.generations=1, or algorithm=protonet",
    "distill.generations=2 algorithm=adversarial": "is no trained student",
    "distill.generations=2 algorithm=protonet distill=kd distill.teacher_mode=feedback": "trained",
    "distill.generations=2 algorithm=protonet student.checkpoint=conf/config.yaml": "new weights",
    "distill.generations=2 dataset=sinusoid distill=kd": "adapts or learns",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused(words: str) -> None:
    with pytest.raises(UserError) as refused:
        check(compose(words.split()).config)
    assert REFUSED[words] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_not_refused_and_idle() -> None:
    words = [SEEDS, "pretrain.generations=3", "algorithm=protonet", "distill=kd"]
    check(compose(words).config)
    assert compose([*words, "teacher.seed=4"]).warnings == (
        "teacher.seed changes nothing: teacher.seeds are the networks' seeds",
    )
    (line,) = compose(["distill.ensemble=support_accuracy"]).warnings
    assert line == "distill.ensemble changes nothing: the teacher is one network"
