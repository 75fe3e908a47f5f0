"""Every mistake in composing is one line with the nearest valid name."""

from __future__ import annotations

import pytest

from metakd.config.compose import compose
from metakd.config.torchvision_names import CLASSIFIERS
from metakd.errors import UserError

MISTAKES = {
    "algorithm=mamll": "algorithm=mamll: no such choice. Did you mean 'maml'?",
    "teacher=resnet88": "teacher=resnet88: no such choice. Did you mean 'resnet8'?",
    "distill=qqqq": "Choose one of: ",
    "experiment=omniglot/protonet_5way": "omniglot/protonet_5way",
    "algoritm=maml": "Did you mean 'algorithm'?",
    "architecture=conv4": "teacher=conv4 or student=conv4",
    "algorithm.iner_lr=3": "Did you mean 'algorithm.inner_lr'?",
    "seeed=1": "Did you mean 'seed'?",
    "lr=3": "'meta_train.lr'",
    "inner_step=3": "'algorithm.inner_steps'",
    "meta_train.inner_lr=1": "'algorithm.inner_lr'",
    "train.epochs=3": "'pretrain.epochs'",
    "++algorithm.zzz=3": "algorithm.zzz: no such setting",
    "algorithm.options.nope=3": "no choice of 'algorithm' has the option 'nope'",
    "algorithm.inner_lr=abc": "expected a number",
    "task.shots=1.5": "expected a whole number",
    "task.ways=": "expected a whole number",
    "evaluate.shots=5": "expected a list of whole numbers",
    "algorithm.first_order=maybe": "expected true or false",
    "task.shots=1,5": "several values need -m",
    "algorithm=maml,reptile": "several choices need -m",
    "distill=null": "'distill' needs a choice",
    "~distill": "'distill' needs a choice",
    "~seed": "cannot be removed",
    "foo": "key=value",
    "=3": "missing before '='",
    "student.width=[": "cannot read this",
    "teacher=resnet18": "type teacher=torchvision teacher.model=resnet18",
    "student=mobilenet_v3_small": "type student=torchvision student.model=mobilenet_v3_small",
    "teacher=none": "type distill=none",
    "maml": "Did you mean 'algorithm=maml'?",
    "omniglot": "Did you mean 'dataset=omniglot'?",
    "evaluate.shots=[1,5": "']' is missing at its end; a list is one word",
    "evaluate.shots=[1,": '"evaluate.shots=[1]"',
    "task={ways: 3}": "choose by name",
    "name=${foo}": "foo",
    "hydra.run.dirr=x": "dirr",
    "hydra/launcher=jobli": "Choose one of: basic",
    "algorithm@x=maml": "algorithm@x",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_mistake(typed: str) -> None:
    with pytest.raises(UserError) as error:
        compose([typed])
    message = str(error.value)
    assert MISTAKES[typed] in message
    assert "\n" not in message
    assert len(message) < 300


def test_folder_that_is_not_there() -> None:
    with pytest.raises(UserError, match="--config-dir /nope: there is no such folder"):
        compose([], "/nope")


def test_a_name_and_its_value_as_two_words() -> None:
    for words, hint in {
        ("algorithm", "maml"): "Did you mean 'algorithm=maml'?",
        ("task.ways", "3"): "Did you mean 'task.ways=3'?",
        ("resume", "runs/a"): "Did you mean 'resume=runs/a'?",
    }.items():
        with pytest.raises(UserError) as error:
            compose(words)
        assert hint in str(error.value)


def test_the_names_of_torchvision_s_classifiers() -> None:
    import torchvision

    assert {*torchvision.models.list_models(module=torchvision.models)} >= CLASSIFIERS
    assert "resnet18" in CLASSIFIERS
