from __future__ import annotations

import copy
import json

import pytest
import torch

from hirelc.compression.apply import CompressedNetwork, apply
from hirelc.compression.rate import FileGoal
from hirelc.config import TrainConfig
from hirelc.measure import finetune as module
from hirelc.measure.evaluate import accuracy
from hirelc.measure.finetune import Diverged, Trainer, schedule
from hirelc.measure.judge import Verdict
from hirelc.measure.session import trained_json, trained_of
from hirelc.network.trace import trace
from hirelc.policy import Choice, Granularity, Policy
from hirelc.task import CLASSIFICATION, Task
from measure.small import data, samples, tiny

CONFIG = TrainConfig(images=4000, batch_size=32, precision="fp32", learning_rate=0.01)


def trainer(task: Task = CLASSIFICATION, config: TrainConfig = CONFIG, seed: int = 0) -> Trainer:
    return Trainer(tiny(), data(), data(160, 1), task, config, seed)


def damaged(bits: int = 2, granularity: Granularity = Granularity.LEARNED) -> CompressedNetwork:
    """Half of the channels gone, the rest at few bits."""
    network = tiny()
    spec = trace(network, samples(2, 0)[0])
    policy = Policy.of({k.name: Choice(bits, 0.5, granularity=granularity) for k in spec.kernels})
    return apply(network, spec, policy, {k.name: dict(network.named_parameters())[k.name].detach() ** 2 for k in spec.kernels})


def test_finetuning_repairs_a_damaged_network() -> None:
    student = damaged()
    steps = {name: q.scale.detach().clone() for name, q in student.quantizer_of().items()}
    trained = trainer().finetune(student, 3200, name="a")
    start = trained.scores[0][1]
    assert trained.best >= start + 4
    assert trained.best in [score for _, score in trained.scores]
    assert not student.training
    assert accuracy(student, data(160, 1), CLASSIFICATION) == trained.best  # the best state is the one that is left
    assert trained.images <= 3200
    moved = [not torch.equal(q.scale, steps[name]) for name, q in student.quantizer_of().items()]
    assert all(moved)  # learned steps train too


def test_the_best_state_is_kept_when_training_only_harms(monkeypatch: pytest.MonkeyPatch) -> None:
    student = damaged(8, Granularity.PER_CHANNEL)
    scores = map(Verdict, [90.0, *range(80, 60, -1)])
    monkeypatch.setattr(Trainer, "_validate", lambda *_: next(scores))
    monkeypatch.setattr("hirelc.measure.finetune.settling_batches", lambda *_: 0)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    config = TrainConfig(batch_size=32, precision="fp32", learning_rate=0.1, evaluations=20)
    trained = trainer(config=config).finetune(student, 3200, name="a")
    assert trained.best == 90.0
    assert [images for images, _ in trained.scores] == [32 * step for step in range(0, 105, 5)]  # to the end all the same
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


@pytest.mark.parametrize("other", ["seed", "name"])
def test_same_seed_same_weights(other: str) -> None:
    states = []
    for seed, name in [(0, "a"), (0, "a"), (1, "a") if other == "seed" else (0, "b")]:
        student, made = damaged(), trainer(seed=seed)
        torch.manual_seed(len(states))  # whatever ran before must not reach the dropout
        made.finetune(student, 640, name=name)
        states.append(student.state_dict())
    first, second, third = states
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], third[key]) for key in first)


def test_a_loss_that_is_not_finite_ends_it() -> None:
    broken = Task(loss=lambda logits, targets: logits.sum() * float("nan"), metric=CLASSIFICATION.metric, name="none")
    with pytest.raises(Diverged, match="nan after 0 images"):
        trainer(broken).finetune(damaged(), 640, name="a")


def test_the_teacher_is_not_trained() -> None:
    made = trainer()
    before = copy.deepcopy(made.teacher.state_dict())
    made.finetune(damaged(), 640, name="a")
    assert all(torch.equal(value, before[key]) for key, value in made.teacher.state_dict().items())


def test_the_budget_of_images_is_kept() -> None:
    seen: list[int] = []
    trained = trainer().finetune(damaged(), 1000, name="a", progress=seen.append)
    assert sum(seen) == trained.images == 31 * 32


def test_the_control_is_trained_by_the_same_function() -> None:
    control = tiny(trained=False)
    trained = trainer(config=TrainConfig(batch_size=32, precision="fp32", distill_weight=0.0)).finetune(control, 3200, name="a")
    assert trained.best > trained.scores[0][1] + 20


def test_the_schedule_warms_up_and_ends_near_zero() -> None:
    rates = [schedule(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0 == rates[10]
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001
    assert schedule(0, 1) == 1.0


def test_norms_biases_and_steps_do_not_decay() -> None:
    student = damaged()
    groups = module._optimizer(student, 0.01, 0.5).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for p in student.network.parameters() if p.ndim > 1}
    every = [id(p) for group in groups for p in group["params"]]
    assert len(set(every)) == len(every) == len([p for p in student.parameters() if p.requires_grad])


def test_without_evaluations_the_last_state_is_left_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    student, looks = damaged(8, Granularity.PER_CHANNEL), []
    monkeypatch.setattr(Trainer, "_validate", lambda *_: looks.append(1) or Verdict(50.0))
    monkeypatch.setattr("hirelc.measure.finetune.settling_batches", lambda *_: 0)  # which would look whether it helps
    goal = FileGoal(1000, lambda network: 2000)  # never small enough
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    trained = trainer().finetune(student, 320, name="a", evaluations=0, file_goal=goal)
    assert not looks and trained.best is None and trained.scores == ()
    assert trained_of(json.loads(json.dumps(trained_json(trained)))) == trained
    assert any(not torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
