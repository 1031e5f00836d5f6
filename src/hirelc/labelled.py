"""Targets that a network gives: samples without labels get them from the original."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from hirelc.batches import Batch, Batches, Inputs, Sealed

KEPT_VALUES = 64_000_000  # of targets; those beyond are made again at each reading


class Labelled:
    """Batches whose targets somebody gives: a teacher, by what it answers. Those of epochs in order are kept.

    :param label: inputs of a batch -> its targets
    """

    def __init__(self, batches: Batches, label: Callable[[Inputs], Tensor]) -> None:
        self._batches, self._label = batches, label
        self._kept: list[Tensor] = []

    @property
    def samples(self) -> int:
        return self._batches.samples

    def epoch(self, seed: int, training: bool) -> Iterator[Batch]:
        for index, (inputs, _) in enumerate(self._batches.epoch(seed, training)):
            if training:
                yield inputs, self._label(inputs)
                continue
            if index < len(self._kept):
                yield inputs, self._kept[index]
                continue
            targets = self._label(inputs)
            if index == len(self._kept) and sum(t.numel() for t in self._kept) + targets.numel() <= KEPT_VALUES:
                self._kept.append(targets)
            yield inputs, targets


class LabelledSealed(Sealed):
    """A test split with somebody's targets: as sealed as the one inside, whose readings it counts."""

    def __init__(self, sealed: Sealed, label: Callable[[Inputs], Tensor]) -> None:
        super().__init__(Labelled(sealed, label))
        self._sealed = sealed

    def unseal(self) -> None:
        super().unseal()
        self._sealed.unseal()
