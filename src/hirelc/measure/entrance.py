"""Forward passes that begin at a block: what stands before the first change gives what it gave before.

Nothing is assumed of the network but that a block is a module which is called once. While a pass runs, each earlier block
answers with its recorded output instead of computing it; stem, head and all that lies between blocks run as ever. A
check against the whole pass, bit for bit and twice, says whether a network can be treated so: not one that calls a block
twice, changes outputs in place or draws random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

MOST_BYTES = 1 << 29  # of outputs that are kept; beyond, passes are whole


class Entrances:
    """Recorded outputs of a network's blocks for one batch. Holds them until it is dropped.

    :ivar usable: False leaves every pass whole
    """

    def __init__(self, network: nn.Module, blocks: Sequence[str], run: Callable[[], Tensor]) -> None:
        """
        :param blocks: module names
        :param run: a whole pass over the batch, in eval mode, with the network's own tensors
        """
        modules = dict(network.named_modules())
        self._modules = {name: modules[name] for name in blocks if name in modules}
        self._outputs: dict[str, Any] = {}  # in the order in which the blocks were done
        self._aliases = _aliases(network)
        self.usable = len(self._modules) == len(blocks) > 1 and self._record(run)
        if not self.usable:
            self._outputs.clear()

    def _record(self, run: Callable[[], Tensor]) -> bool:
        calls = dict.fromkeys(self._modules, 0)

        def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                calls[name] += 1
                self._outputs[name] = output

            return hook

        hooks = [module.register_forward_hook(keep(name)) for name, module in self._modules.items()]
        try:
            whole = run()
        finally:
            for hook in hooks:
                hook.remove()
        kept = [value for value in self._outputs.values() if isinstance(value, Tensor)]
        if set(calls.values()) != {1} or len(kept) < len(calls) or sum(value.nbytes for value in kept) > MOST_BYTES:
            return False
        last = self._named_in([*self._outputs][-1])
        for _ in range(2):
            with self._skipping(last):
                again = run()
            if not torch.equal(torch.nan_to_num(again), torch.nan_to_num(whole)):
                return False
        return True

    def _named_in(self, block: str) -> list[str]:
        return [f"{block}.{name}" for name, _ in self._modules[block].named_parameters()]

    @contextmanager
    def before(self, changed: Collection[str]) -> Iterator[None]:
        """Blocks that are done before the first one that owns a changed tensor answer with what they gave.

        :param changed: names of tensors
        """
        if not self.usable:
            yield
            return
        with self._skipping(changed):
            yield

    @contextmanager
    def _skipping(self, changed: Iterable[str]) -> Iterator[None]:
        skipped = self._earlier({alias for name in changed for alias in self._aliases.get(name, (name,))})
        before = {name: self._modules[name].__dict__.get("forward") for name in skipped}
        try:
            for name in skipped:
                self._modules[name].__dict__["forward"] = lambda *_, output=self._outputs[name], **__: output
            yield
        finally:
            for name, own in before.items():
                if own is None:
                    self._modules[name].__dict__.pop("forward", None)
                else:
                    self._modules[name].__dict__["forward"] = own

    def _earlier(self, changed: Collection[str]) -> list[str]:
        """Blocks that are done before any that holds a changed tensor; none where one lies in no block."""
        order = [*self._outputs]
        first = len(order)
        for name in changed:
            owners = [i for i, block in enumerate(order) if name.startswith(f"{block}.")]
            first = min(first, *owners) if owners else 0
        return order[:first]


def _aliases(network: nn.Module) -> dict[str, list[str]]:
    """All names of each tensor that has several."""
    names: dict[int, list[str]] = {}
    tensors = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    for name, tensor in tensors:
        names.setdefault(id(tensor), []).append(name)
    return {name: group for group in names.values() if len(group) > 1 for name in group}
