from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest
import torch
from torch import nn

from hirelc.compression.prune import canonical
from hirelc.errors import RunError
from hirelc.layout import slim_kernel_shape
from hirelc.measure.latency import (
    KernelTimes,
    LatencyTable,
    TorchKernels,
    batch_of,
    median_ms,
    network_ms,
    smallest,
)
from hirelc.network.spec import Kernel, NetworkSpec
from hirelc.network.trace import trace
from hirelc.policy import Choice, Policy
from zoo import BY_NAME, build

NETS = ("resnet-basic", "mobilenet", "vit-fused", "torch-encoder")


def spec_of(name: str) -> tuple[nn.Module, NetworkSpec, object]:
    entry = BY_NAME[name]
    network = build(entry)
    return network, trace(network, entry.inputs()), entry.inputs()


def by_product(kernel: Kernel, shape: tuple[int, ...]) -> float:
    """A timer that knows the truth: in proportion to the numbers of the slim kernel, and a start-up time."""
    return 0.01 + 1e-6 * kernel.macs * float(torch.tensor(shape).prod()) / kernel.weights


def kept(spec: NetworkSpec, ratio: float) -> Policy:
    return canonical(spec, Policy.of({k.name: Choice(keep_ratio=ratio) for k in spec.kernels}))


def fake_clock(step: float = 0.001) -> Callable[[], float]:
    """Seconds that pass in steps of growing length, the same in every run."""
    ticks = itertools.count()
    return lambda: step * next(ticks) ** 1.5


@pytest.mark.parametrize("name", NETS)
def test_the_sum_is_right_about_the_original_and_exact_where_it_was_measured(name: str) -> None:
    _, spec, _ = spec_of(name)
    table = LatencyTable.of(spec, by_product, (100.0, None), 0.5, "a formula", 1, 1)
    assert table.predict(spec, kept(spec, 1.0)) == pytest.approx(100.0)
    half = kept(spec, 0.5)
    exact = sum(by_product(k, slim_kernel_shape(spec, half, k)) for k in spec.kernels if k.macs)
    assert table.predict(spec, half) == pytest.approx(table.rest_ms + exact)
    assert table.predict(spec, half) < table.predict(spec, kept(spec, 0.8)) < 100.0
    by_block = sum(table.kernels_ms(spec, {n: half[n] for n in block.kernels}) for block in spec.blocks)
    frame = table.kernels_ms(spec, {k.name: half[k.name] for k in spec.frame})
    assert table.rest_ms + by_block + frame == pytest.approx(table.predict(spec, half))


def test_between_counts_it_is_interpolated_in_both_dimensions() -> None:
    times = KernelTimes((0, 1), ((2, 4), (10, 30)), (1.0, 3.0, 2.0, 8.0))
    assert times.at((2, 10, 3)) == 1.0 and times.at((4, 30, 3)) == 8.0
    assert times.at((3, 10, 3)) == pytest.approx(1.5) and times.at((2, 20, 3)) == pytest.approx(2.0)
    assert times.at((3, 20, 3)) == pytest.approx((1 + 3 + 2 + 8) / 4)
    assert times.at((1, 5, 3)) == 1.0 and times.at((9, 99, 3)) == 8.0  # beyond the ends as at the ends
    assert KernelTimes((), (), (0.25,)).at((5, 5)) == 0.25


def test_kernels_that_take_longer_alone_than_in_the_network_are_scaled() -> None:
    _, spec, _ = spec_of("resnet-basic")
    total = sum(by_product(k, k.shape) for k in spec.kernels)
    table = LatencyTable.of(spec, by_product, (total / 2, None), 0.5, "a formula", 1, 1)
    assert table.scale == pytest.approx(0.5) and table.rest_ms == pytest.approx(0)
    assert 0 < table.predict(spec, kept(spec, 0.5)) < total / 2


@pytest.mark.parametrize("small", [60.0, 99.0, 120.0])
def test_it_is_right_about_the_smallest_network_too_where_that_was_measured(small: float) -> None:
    """Slower with fewer channels (120 ms against 100) means that no channels make it faster."""
    _, spec, _ = spec_of("vit-fused")
    table = LatencyTable.of(spec, by_product, (100.0, small), 0.5, "a formula", 1, 1)
    assert table.predict(spec, kept(spec, 1.0)) == pytest.approx(100.0)
    assert table.predict(spec, smallest(spec, 0.5)) == pytest.approx(min(small, 100.0))


def test_a_table_survives_json_and_decides_alike() -> None:
    _, spec, _ = spec_of("mobilenet")
    table = LatencyTable.of(spec, by_product, (50.0, None), 0.25, "a formula", 1, 4)
    again = LatencyTable.loads(json.dumps(table.to_json()))
    assert again == table and again.words == "a formula, 1 thread, batch 4"
    assert again.predict(spec, kept(spec, 0.6)) == table.predict(spec, kept(spec, 0.6))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', '{"version": 1, "kernels": {"a": {}}}', '{"version": 9}'])
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(RunError, match="latency table"):
        LatencyTable.loads(text)


def test_with_a_fake_clock_every_run_measures_the_same() -> None:
    tables = []
    for _ in range(2):
        network, spec, inputs = spec_of("resnet-basic")
        timer = TorchKernels(network, spec, inputs, fake_clock())
        tables.append(LatencyTable.of(spec, timer, (network_ms(network, inputs, fake_clock()), None), 0.5, "fake", 1, 2))
    assert tables[0] == tables[1] and len(tables[0].kernels) == len(spec.kernels)


def test_the_median_leaves_out_what_disturbs() -> None:
    now = [0.0]
    durations = itertools.chain([5.0] * 3, itertools.cycle([0.01, 0.01, 4.0, 0.01, 0.01]))

    def run() -> None:
        now[0] += next(durations)

    assert median_ms(run, lambda: now[0]) == pytest.approx(10.0)


def test_like_kernels_are_measured_once() -> None:
    network, spec, inputs = spec_of("vit-fused")
    timer = TorchKernels(network, spec, inputs)
    pairs = [k for k in spec.kernels if k.block in (0, 1) and "fc1" in k.name]
    if len(pairs) == 2:
        assert timer(pairs[0], pairs[0].shape) == timer(pairs[1], pairs[1].shape)
    before = len(timer._known)
    for kernel in spec.kernels:
        if kernel.macs:
            timer(kernel, kernel.shape)
    once = len(timer._known)
    for kernel in spec.kernels:
        if kernel.macs:
            timer(kernel, kernel.shape)
    assert before <= once == len(timer._known) < len(spec.kernels)


def test_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    network_ms(nn.Linear(3, 3), torch.randn(1, 3))
    assert torch.get_num_threads() == before


def test_batches_are_filled_up() -> None:
    assert batch_of(torch.arange(2.0)[:, None], 5)[:, 0].tolist() == [0, 1, 0, 1, 0]
