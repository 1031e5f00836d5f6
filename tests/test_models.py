from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hirelc.batches import TensorBatches
from hirelc.errors import DataError, NetworkError, RunError
from hirelc.models import answers, check_fits, find_factory, load_network, load_weights, place
from hirelc.task import named_task

SOURCE = """
import torch
from torch import nn

def make_net(classes=3):
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, classes))

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.head.weight = self.table.weight
    def forward(self, x):
        return self.head(self.table(x))

class Nets:
    inner = staticmethod(make_net)

ready = make_net()
number = 7
def needs(width): return make_net()
def wrong(): return "a network"
def raises(): raise KeyError("no such width")
"""


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with modules of the user's own."""
    (tmp_path / "models_nets.py").write_text(SOURCE)
    (tmp_path / "models_broken.py").write_text("import models_absent\n")
    (tmp_path / "models_syntax.py").write_text("def make(:\n")
    (tmp_path / "models_leaving.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("models_")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


@pytest.mark.parametrize("attribute", ["make_net", "ready", "Nets.inner", "Tied"])
def test_functions_classes_and_modules_make_networks(attribute: str) -> None:
    make = find_factory(f"models_nets:{attribute}")
    first, second = make(), make()
    assert isinstance(first, nn.Module) and first is not second
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), "initial weights follow the seed"
        assert tensor.data_ptr() != second.state_dict()[name].data_ptr()


def test_initial_weights_follow_the_seed_and_nothing_else_moves() -> None:
    before = torch.get_rng_state()
    one, other = load_network("models_nets:make_net", seed=1), load_network("models_nets:make_net", seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(one.state_dict()["0.weight"], other.state_dict()["0.weight"])
    assert not one.training


WRONG = {
    "models_nets": "no module:factory",
    "models_nets:": "no module:factory",
    "models_nets.py:make_net": "names a file.*models_nets:make_net",
    "sub/models_nets.py:make_net": "sub.models_nets:make_net",
    "models_absent:make": "does not import: ModuleNotFoundError",
    "models_broken:make": "models_broken does not import.*models_absent",
    "models_syntax:make": "does not import: SyntaxError",
    "models_leaving:make": "does not import: SystemExit",
    "models_nets:make_nett": "has no 'make_nett'; did you mean make_net",
    "models_nets:zzz": "has no 'zzz': name a function",
    "models_nets:number": "int cannot be called",
    "models_nets:needs": "fails when called without arguments: TypeError",
    "models_nets:raises": "KeyError",
    "models_nets:wrong": "returns str, not a torch.nn.Module",
}


@pytest.mark.parametrize(("spec", "message"), WRONG.items())
def test_a_wrong_model_is_a_network_error(spec: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        load_network(spec)


def state(seed: int = 5) -> dict[str, Tensor]:
    return dict(load_network("models_nets:make_net", seed=seed).state_dict())


def saved(tensors: dict[str, Tensor]) -> Path:
    path = Path("net.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def test_weights_arrive() -> None:
    wanted = state()
    network = load_network("models_nets:make_net", saved(wanted))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, wanted[name])


def test_counters_may_be_missing_and_tied_weights_stored_once() -> None:
    load_network("models_nets:make_net", saved({n: t for n, t in state().items() if "num_batches" not in n}))
    table = torch.randn(6, 4)
    network = load_network("models_nets:Tied", saved({"head.weight": table}))
    assert torch.equal(network.state_dict()["table.weight"], table)


def test_weights_that_do_not_fit_name_what_differs() -> None:
    tensors = state()
    tensors["extra.bias"] = tensors.pop("2.bias")
    tensors["0.weight"] = torch.zeros(8, 5)
    message = (
        r"net.safetensors: the weights do not fit the network: missing \(1\): 2.bias; unexpected \(1\): extra.bias; "
        r"other shapes \(1\): 0.weight \(8, 5\) in the file, \(8, 4\) in the network"
    )
    with pytest.raises(NetworkError, match=message):
        load_network("models_nets:make_net", saved(tensors))


def test_many_names_are_cut_short_and_a_wrapper_is_recognised() -> None:
    path = saved({f"module.{name}": tensor for name, tensor in state().items()})
    with pytest.raises(NetworkError, match=r"missing \(8\): .* and 3 more; .*every name in the file begins with 'module.'"):
        load_network("models_nets:make_net", path)


def test_weights_must_be_finite_safetensors(workplace: Path) -> None:
    with pytest.raises(NetworkError, match="no such file"):
        load_network("models_nets:make_net", "absent.safetensors")
    torch.save(state(), "net.pt")
    with pytest.raises(NetworkError, match=r"net.pt: .*pickle.*save_file\(net.state_dict\(\)"):
        load_network("models_nets:make_net", "net.pt")
    Path("bad.safetensors").write_bytes(b"not this")
    with pytest.raises(NetworkError, match="not a readable safetensors file"):
        load_network("models_nets:make_net", "bad.safetensors")
    tensors = state()
    tensors["2.weight"][0, 0] = torch.nan
    with pytest.raises(NetworkError, match=r"NaN or infinite weights \(1 tensors\): 2.weight"):
        load_weights(find_factory("models_nets:make_net")(), saved(tensors))


def test_a_network_that_does_not_fit_its_data() -> None:
    network = load_network("models_nets:make_net")
    assert check_fits(network, TensorBatches(torch.zeros(4, 4), torch.zeros(4))) == 3
    with pytest.raises(DataError, match=r"fails on samples of shape \(5,\)"):
        check_fits(network, TensorBatches(torch.zeros(4, 5), torch.zeros(4)))
    with pytest.raises(RunError, match="'nosuch' cannot be used"):
        place(network, "nosuch")


def test_an_output_that_depends_on_the_batch_is_no_answer_to_each_sample() -> None:
    class EachWithEach(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x.T

    with pytest.raises(NetworkError, match=r"2 samples give outputs of shape \(2, 2\), 3 samples \(3, 3\): .*unpack"):
        check_fits(EachWithEach(), TensorBatches(torch.zeros(4, 5), torch.zeros(4)))


def test_what_chance_decides_is_decided_alike_each_time() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    task, data = named_task("distill-values"), torch.zeros(4, 5)
    label = answers(Noisy(), task)
    assert torch.equal(label(data), label(data))
