"""Which dimensions must shrink together: torch-pruning proposes, a forward pass of our own decides.

A proposal stands only if, with units removed at random, every module that reads the dimension computes the
same as the network whose units are zeroed. What fails the check is not coupled: its rows can still be pruned
by scattering them back (`Pruning.ROWS`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from hirelc.network.attention import head_couplings
from hirelc.network.checking import Checker
from hirelc.network.graph import TRACE_ERRORS, Graph, NoGroup
from hirelc.network.kernels import Candidate
from hirelc.network.proposals import evenly, inside, proposals
from hirelc.network.spec import Block, Coupling

SHOWN_NAMES = 3
LEAVES = "its channels leave the block"
CHECK_FAILS = "its coupled dimensions fail the check by a forward pass; rows are pruned instead"


@dataclass(frozen=True)
class Found:
    """The couplings that hold.

    :param refused: kernel -> why its output channels are not coupled
    :param notes: the same for people, and what else could not be had
    """

    couplings: tuple[Coupling, ...]
    refused: Mapping[str, str]
    notes: tuple[str, ...]


def find_couplings(
    network: nn.Module, inputs: Any, kernels: Sequence[Candidate], blocks: Sequence[Block], shared: frozenset[str]
) -> Found:
    """Couplings that stay inside one block, each checked by a forward pass.

    :param network: in eval mode, on the device of `inputs`; it is not changed
    :param shared: kernel names that must not be sliced (tied, or never called)
    """
    search = _Search(network, inputs, kernels, blocks, shared)
    search.stock_attention()
    notes = []
    try:
        graph = Graph(network, inputs)
    except TRACE_ERRORS as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        notes.append(f"torch-pruning cannot trace the network ({reason}): rows are pruned one kernel at a time")
    else:
        search.traced(graph)
    return Found(tuple(search.couplings), search.refused, (*notes, *_by_reason(search.failed)))


class _Search:
    def __init__(
        self, network: nn.Module, inputs: Any, kernels: Sequence[Candidate], blocks: Sequence[Block], shared: frozenset[str]
    ) -> None:
        self.network, self.inputs, self.shared = network, inputs, shared
        self.kernels = {k.name: k for k in kernels if k.kind != "Embedding"}
        self.owner = {name: i for i, block in enumerate(blocks) for name in block.kernels}
        self.checker = Checker(network, inputs, kernels)
        self.couplings: list[Coupling] = []
        self.taken: set[str] = set()
        self.refused: dict[str, str] = {}
        self.failed: dict[str, str] = {}  # those that were understood, and yet do not hold

    def stock_attention(self) -> None:
        for coupling, path in head_couplings(self.network):
            names = {m.tensor for m in coupling.members if m.tensor in self.kernels}
            reason = self._outside(names, coupling.producers)
            if not reason and self.checker.holds(coupling, [path]):
                self._take(coupling)
                continue
            reason = reason or CHECK_FAILS
            self.refused |= dict.fromkeys(coupling.producers, reason)

    def traced(self, graph: Graph) -> None:
        for kernel in self.kernels.values():
            if kernel.name in self.taken or kernel.name in self.refused or kernel.name not in self.owner:
                continue
            try:
                group = graph.group(kernel)
            except NoGroup as error:
                self.refused[kernel.name] = str(error)
                continue
            except TRACE_ERRORS as error:
                self.refused[kernel.name] = self.failed[kernel.name] = f"torch-pruning gives no group ({type(error).__name__})"
                continue
            reason, find = self._outside({*group.producers, *group.consumers}, group.producers), proposals
            if reason == LEAVES and group.attention:
                group, find = inside(group, self._block_of(kernel.name)), evenly
                reason = self._outside({*group.producers, *group.consumers}, group.producers) if group.consumers else LEAVES
            if not group.consumers and not reason:
                reason = "nothing that is known reads its channels"
            if (
                kernel.name not in group.producers and not reason
            ):  # a type of its own, whose use of its weight nobody here knows
                reason = f"a {kernel.kind} may do more with its weight than multiply"
            if reason:
                self.refused[kernel.name] = reason
                continue
            options = find(self.network, self.inputs, group, self.kernels)
            held = next((c for c in options if kernel.name in c.producers and self.checker.holds(c)), None)
            if held is None:
                self.refused[kernel.name] = self.failed[kernel.name] = CHECK_FAILS
                continue
            self._take(held)

    def _block_of(self, name: str) -> frozenset[str]:
        """The kernels of the same block."""
        return frozenset(other for other, block in self.owner.items() if block == self.owner[name])

    def _outside(self, names: Iterable[str], producers: Iterable[str]) -> str:
        """Why channels that these kernels write and read must stay; nothing where they may go."""
        names = set(names)
        if len({self.owner.get(name) for name in names}) > 1 or any(name not in self.owner for name in names):
            return LEAVES
        if names & self.shared:
            return f"{min(names & self.shared)} shares its weight, or is never called"
        if self.taken & set(producers):
            return "its channels are coupled to others already"
        return ""

    def _take(self, coupling: Coupling) -> None:
        self.couplings.append(coupling)
        self.taken.update(coupling.producers)


def _by_reason(failed: Mapping[str, str]) -> list[str]:
    """One note for each reason, with the first kernels that it concerns."""
    kernels: dict[str, list[str]] = {}
    for name, reason in failed.items():
        kernels.setdefault(reason, []).append(name)
    notes = []
    for reason, names in kernels.items():
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        notes.append(f"{', '.join(names[:SHOWN_NAMES])}{more}: {reason}")
    return notes
