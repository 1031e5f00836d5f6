from __future__ import annotations

import pytest
import torch
from stable_baselines3.common.distributions import MultiCategoricalDistribution

from hirelc.search.distributions import GroupedChoices

BLOCK = [15, 15, 2, 4] * 3


@pytest.mark.parametrize("dims", [BLOCK, [5, 3] * 6, [3, 3], [7]])
@pytest.mark.parametrize("batch", [1, 16])
def test_draws_and_probabilities_are_the_librarys(dims: list[int], batch: int) -> None:
    logits = 3 * torch.randn(batch, sum(dims), generator=torch.Generator().manual_seed(1))
    slow, fast = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    theirs, ours = MultiCategoricalDistribution(dims).proba_distribution(slow), GroupedChoices(dims).proba_distribution(fast)
    torch.manual_seed(0)
    expected = theirs.sample()
    torch.manual_seed(0)
    drawn = ours.sample()
    assert torch.equal(drawn, expected)
    assert torch.equal(ours.mode(), theirs.mode())
    assert torch.allclose(ours.log_prob(drawn.float()), theirs.log_prob(drawn.float()), atol=1e-6)
    assert torch.allclose(ours.entropy(), theirs.entropy(), atol=1e-4)
    theirs.log_prob(drawn).square().sum().backward()
    ours.log_prob(drawn).square().sum().backward()
    assert slow.grad is not None and fast.grad is not None
    assert torch.allclose(fast.grad, slow.grad, rtol=1e-5, atol=1e-6)


def test_a_certain_choice_has_no_entropy() -> None:
    logits = torch.full((2, 5), -1e9)
    logits[:, [1, 3]] = 0.0
    certain = GroupedChoices([3, 2]).proba_distribution(logits)
    assert certain.entropy().tolist() == [0.0, 0.0]
    assert certain.sample().tolist() == certain.mode().tolist() == [[1, 0], [1, 0]]
