"""Many small categorical choices at once: stable-baselines3's distribution of MultiDiscrete actions, in fewer operations.

A block's action is four numbers per kernel. The library makes one distribution object per number, dozens of tiny
tensor operations in every forward and backward pass; here all numbers with equally many options share one. Same draws,
same probabilities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.distributions import MultiCategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor


class GroupedChoices(MultiCategoricalDistribution):
    """Independent categorical choices, grouped by how many options they have.

    :param action_dims: options of each choice
    """

    def __init__(self, action_dims: list[int]) -> None:
        super().__init__(action_dims)
        sizes = np.array(action_dims)
        starts = np.cumsum(sizes) - sizes
        members = [np.flatnonzero(sizes == size) for size in sorted({*action_dims})]
        self._members = [torch.as_tensor(places) for places in members]
        self._columns = [torch.as_tensor((starts[places, None] + np.arange(sizes[places[0]])).ravel()) for places in members]
        self._order = torch.as_tensor(np.argsort(np.concatenate(members)))  # from groups back to the action's order
        self._place = {int(place): (group, i) for group, places in enumerate(members) for i, place in enumerate(places)}

    def proba_distribution(self, action_logits: Tensor) -> GroupedChoices:
        """
        :param action_logits: (batch, sum of all options)
        """
        self._logits = []
        for places, columns in zip(self._members, self._columns, strict=True):
            logits = action_logits.index_select(1, columns).view(len(action_logits), len(places), -1)
            self._logits.append(logits - logits.logsumexp(-1, keepdim=True))
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """Of whole actions, (batch,).

        :param actions: (batch, choices)
        """
        actions = actions.long()
        parts = [
            logits.gather(-1, actions.index_select(1, places).unsqueeze(-1)).squeeze(-1)
            for logits, places in zip(self._logits, self._members, strict=True)
        ]
        return self._in_order(parts).sum(1)

    def entropy(self) -> Tensor:
        """Of whole actions, (batch,). Without a gradient: no agent here is rewarded for it."""
        with torch.no_grad():
            return self._in_order([-(logits * logits.exp()).nan_to_num(0.0).sum(-1) for logits in self._logits]).sum(1)

    def sample(self) -> Tensor:
        """(batch, choices), int64. One exponential per option decides, as in `torch.multinomial`, choice by choice."""
        races = [torch.empty_like(logits) for logits in self._logits]
        for place, size in enumerate(self.action_dims):
            group, index = self._place[place]
            races[group][:, index] = torch.empty(len(races[group]), int(size)).exponential_()
        return self._in_order([(p / q).argmax(-1) for p, q in zip(self._probabilities(), races, strict=True)])

    def mode(self) -> Tensor:
        """The most probable action, (batch, choices)."""
        return self._in_order([p.argmax(-1) for p in self._probabilities()])

    def _probabilities(self) -> list[Tensor]:
        return [logits.softmax(-1) for logits in self._logits]

    def _in_order(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, 1).index_select(1, self._order)


class ChoicePolicy(ActorCriticPolicy):
    """The library's actor and critic with `GroupedChoices`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert isinstance(self.action_dist, MultiCategoricalDistribution)
        self.action_dist = GroupedChoices([int(size) for size in self.action_dist.action_dims])
