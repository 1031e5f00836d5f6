from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from hirelc.compression.activations import ActivationSite, SiteQuantizers, attach, attached, detach, observe
from hirelc.compression.calibration import Samples, search_range
from hirelc.errors import FormatError
from hirelc.network.calling import call, logits_of
from zoo import BY_NAME, Twice, build


def kernels(network: nn.Module) -> list[str]:
    return [f"{name}.weight" for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def placed(name: str) -> dict[tuple[str, str], ActivationSite]:
    entry = BY_NAME[name]
    network = build(entry)
    return {(site.module, site.side): site for site in observe(network, kernels(network), [entry.inputs()]).sites}


def test_a_residual_network_is_quantized_behind_relus_and_where_paths_join() -> None:
    sites = placed("mobilenet")
    assert ("features.0.2", "output") in sites  # behind convolution, BatchNorm and ReLU6
    assert ("features.1.conv.3", "output") in sites  # a BatchNorm that feeds an addition
    assert ("features.1", "output") in sites  # the sum, which both paths of the next block read
    assert ("features.0.0", "output") not in sites and ("features.0.1", "output") not in sites
    assert all(site.zero_point == 0 for (module, _), site in sites.items() if module.endswith(".2"))


def test_functional_relus_put_the_site_in_front_with_the_range_behind() -> None:
    site = placed("resnet-bottleneck")[("layer1.0.bn1", "output")]
    assert site.zero_point == 0  # F.relu alone reads it: negative values need no codes


def test_a_relu_module_shared_by_two_tensors_does_not_join_their_ranges() -> None:
    sites = placed("resnet-basic")
    assert ("layer1.0.bn1", "output") in sites and ("layer1.0", "output") in sites
    assert ("layer1.0.relu", "output") not in sites


def test_query_key_and_value_read_one_site_and_make_one_each() -> None:
    sites = placed("vit-separate")
    assert ("layers.0.norm1", "output") in sites
    around = {(module, side) for module, side in sites if module.startswith("layers.0.attn.") and module[-1] in "qkv"}
    assert around == {(f"layers.0.attn.{name}", "output") for name in "qkv"}  # factors of the products of attention
    assert ("layers.0.attn.out", "input") in sites


def test_what_stays_float_has_a_reason() -> None:
    entry = BY_NAME["hf-bert"]
    network = build(entry)
    name = "bert.embeddings.word_embeddings.weight"
    assert "integers" in observe(network, [name], [entry.inputs()]).left[name]
    entry = BY_NAME["vit-torchvision"]
    network = build(entry)
    name = "layers.0.attn.mha.out_proj.weight"
    assert "not called" in observe(network, [name], [entry.inputs()]).left[name]


def test_a_block_that_is_called_twice() -> None:
    network = Twice().eval()
    images = torch.randn(4, 3, 16, 16)
    found = observe(network, kernels(network), [images])
    assert not found.left and len({(s.module, s.side) for s in found.sites}) == len(found.sites)
    wanted = network(images).detach()
    attach(network, found.sites)
    assert 0 < float((network(images).detach() - wanted).norm() / wanted.norm()) < 0.05


@pytest.mark.parametrize("name", ["resnet-basic", "squeeze-excite", "vit-fused", "hf-gpt2"])
def test_eight_bits_change_little_and_attach_can_be_undone(name: str) -> None:
    entry = BY_NAME[name]
    network, inputs = build(entry), entry.inputs()
    wanted = logits_of(call(network, inputs)).detach()
    found = observe(network, kernels(network), [inputs])
    attach(network, found.sites)
    copied = copy.deepcopy(network)
    assert sorted(map(str, attached(copied))) == sorted(map(str, found.sites))
    change = float((logits_of(call(copied, inputs)).detach() - wanted).norm() / wanted.norm())
    assert 0 < change < 0.05
    detach(network)
    assert torch.equal(logits_of(call(network, inputs)).detach(), wanted)


def test_values_are_multiples_of_the_scale_within_the_range() -> None:
    network = nn.Sequential(nn.Linear(3, 3))
    attach(network, [ActivationSite("0", "output", 0.5, 100)])
    values = network(1000 * torch.randn(64, 3)) / 0.5
    assert torch.equal(values, values.round())
    assert values.min() == -100 and values.max() == 155


def test_the_range_is_the_one_of_least_error_and_holds_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = Samples()
    values = torch.randn(100_000, generator=generator).clamp(-6, 4)
    samples.add(values)
    scale, zero = search_range(samples)
    low, high = float(values.min()), float(values.max())
    assert 0 < zero < 255
    rounded = torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, 255)
    whole = (high - low) / 255
    plain = torch.fake_quantize_per_tensor_affine(values, whole, round(-low / whole), 0, 255)
    assert (rounded - values).square().mean() < (plain - values).square().mean()
    positive = Samples()
    positive.add(values.abs())
    assert search_range(positive)[1] == 0
    nothing = Samples()
    nothing.add(torch.zeros(5))
    assert search_range(nothing)[0] > 0


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_ranges_learn_and_gradients_pass_through() -> None:
    torch.manual_seed(0)
    network = Line()
    quantizers = SiteQuantizers(network, [ActivationSite("layer", "input", 2.0**-10, 128)])  # a range far too small
    inputs = torch.randn(256, 4, requires_grad=True)
    wanted = network.layer.weight.detach() @ inputs.detach().T
    before = quantizers.sites()[0].scale
    optimizer = torch.optim.Adam(quantizers.parameters(), 0.05)
    losses = []
    for _ in range(150):
        loss = (network(inputs).T - wanted - network.layer.bias.detach()[:, None]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert inputs.grad is not None and inputs.grad.abs().sum() > 0
    assert losses[-1] < losses[0] / 100 and quantizers.sites()[0].scale > 5 * before


def test_the_gradient_of_the_scale_is_that_of_the_rounded_values() -> None:
    network = Line()
    quantizers = SiteQuantizers(network, [ActivationSite("layer", "input", 0.25, 128)])
    inputs = torch.tensor([[0.3, 100.0, -100.0, 0.0]])
    network(inputs).sum().backward()
    weight = network.layer.weight.detach().sum(0)
    slopes = torch.tensor([round(0.3 / 0.25) - 0.3 / 0.25, 127.0, -128.0, 0.0])
    expected = 0.25 * float((weight * slopes).sum())  # by the logarithm of the scale
    assert float(quantizers[0].log_scale.grad) == pytest.approx(expected, rel=1e-4)


def test_training_and_the_network_read_back_compute_the_same() -> None:
    network = Line()
    quantizers = SiteQuantizers(network, [ActivationSite("layer", "input", float(torch.tensor(0.1)), 3)])
    read_back = copy.deepcopy(network)
    for hooks in (read_back.layer._forward_pre_hooks, read_back.layer._forward_pre_hooks_with_kwargs):
        hooks.clear()
    attach(read_back, quantizers.sites())
    inputs = torch.randn(32, 4)
    with torch.no_grad():
        assert torch.equal(network(inputs), read_back(inputs))
    assert torch.allclose(network(inputs), read_back(inputs), atol=1e-5)


def test_a_copy_trains_its_own_ranges() -> None:
    holder = nn.Module()
    holder.network = Line()
    holder.quantizers = SiteQuantizers(holder.network, [ActivationSite("layer", "input", 0.5, 128)])
    copied = copy.deepcopy(holder)
    with torch.no_grad():
        copied.quantizers[0].log_scale.add_(math.log(4))
        inputs = torch.tensor([[0.7, 0.1, 0.0, 0.0]])
        assert torch.equal(holder.network(inputs), holder.network.layer(inputs))
        assert not torch.equal(holder.network(inputs), copied.network(inputs))


@pytest.mark.parametrize(
    "site",
    [
        ("a", "inside", 1.0, 0),
        ("a", "input", 0.0, 0),
        ("a", "input", math.nan, 0),
        ("a", "input", 0.1, 0),
        ("a", "input", 1.0, 256),
    ],
)
def test_sites_that_no_file_may_hold(site: tuple[str, str, float, int]) -> None:
    with pytest.raises(FormatError, match="activation site 'a'"):
        ActivationSite(*site)  # type: ignore[arg-type]


def test_a_site_of_another_network() -> None:
    with pytest.raises(FormatError, match=r"nowhere\.conv"):
        attach(Line(), [ActivationSite("nowhere.conv", "input", 1.0, 0)])
