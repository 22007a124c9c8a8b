"""Training-free scores against sums over single weights, finite differences and networks by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from nni_supernet_ext.errors import DataError
from nni_supernet_ext.functional import grad_norm, naswot, snip, synflow
from nni_supernet_ext.spaces import nasbench201_network


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 2)
        ).double()


def batch(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 2, 3, 3, generator=generator, dtype=torch.float64), torch.arange(n) % 2


def slopes(net: nn.Module, value: Callable[[], torch.Tensor]) -> list[list[tuple[float, float]]]:
    """Differentiate by moving each weight a little: pairs of weight and slope, tensor by tensor."""
    tensors = []
    for weight in net.parameters():
        pairs = []
        flat = weight.data.view(-1)
        for index in range(flat.numel()):
            kept = float(flat[index])
            flat[index] = kept + 1e-6
            up = float(value())
            flat[index] = kept - 1e-6
            down = float(value())
            flat[index] = kept
            pairs.append((kept, (up - down) / 2e-6))
        tensors.append(pairs)
    return tensors


@torch.no_grad()
def test_grad_norm_and_snip_equal_finite_differences() -> None:
    net, (images, labels) = network().eval(), batch()
    tensors = slopes(net, lambda: nn.functional.cross_entropy(net(images), labels))
    norms = [math.sqrt(sum(slope**2 for _, slope in pairs)) for pairs in tensors]
    assert grad_norm(net, images, labels) == pytest.approx(sum(norms), rel=1e-5)
    sensitivities = [abs(weight * slope) for pairs in tensors for weight, slope in pairs]
    assert snip(net, images, labels) == pytest.approx(sum(sensitivities), rel=1e-5)


@torch.no_grad()
def test_synflow_equals_finite_differences_without_batch_norm() -> None:
    net, (images, _) = network(), batch()
    plain = copy.deepcopy(nn.Sequential(net[0], net[2], net[3], net[5])).eval()
    for weight in plain.parameters():
        weight.abs_()
    tensors = slopes(plain, lambda: plain(torch.ones(1, 2, 3, 3, dtype=torch.float64)).sum())
    flow = sum(weight * slope for pairs in tensors for weight, slope in pairs)
    assert synflow(net, images) == pytest.approx(flow, rel=1e-5)


def test_synflow_of_a_chain_is_a_product_by_hand() -> None:
    chain = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    chain[0].weight.data.fill_(-3.0)
    chain[2].weight.data.fill_(2.0)
    # R = 3 * 2, and each of both weights times its slope is R again.
    assert synflow(chain, torch.zeros(4, 1)) == pytest.approx(12.0)
    assert chain[0].weight.item() == -3.0


def test_naswot_counts_agreements_one_by_one() -> None:
    net, (images, _) = network().eval(), batch(4)
    with torch.no_grad():
        units = (net[:3](images).flatten(1) > 0).tolist()
    kernel = [[float(sum(a == b for a, b in zip(x, y, strict=True))) for y in units] for x in units]

    def determinant(matrix: list[list[float]]) -> float:
        if len(matrix) == 1:
            return matrix[0][0]
        minors = [[row[:j] + row[j + 1 :] for row in matrix[1:]] for j in range(len(matrix))]
        return sum((-1) ** j * matrix[0][j] * determinant(minor) for j, minor in enumerate(minors))

    assert naswot(net, images) == pytest.approx(math.log(abs(determinant(kernel))))
    assert naswot(net, images[[0, 0]]) == -math.inf
    twice = nn.Sequential(net[0], net[1], net[2], nn.ReLU())
    assert naswot(twice, images) == pytest.approx(math.log(16 * abs(determinant(kernel))))  # each count doubles


SCORES = {
    "grad_norm": lambda net: grad_norm(net, *batch()),
    "snip": lambda net: snip(net, *batch()),
    "synflow": lambda net: synflow(net, batch()[0]),
    "naswot": lambda net: naswot(net, batch()[0]),
}


@pytest.mark.parametrize("name", SCORES)
def test_the_network_is_left_as_it_was(name: str) -> None:
    net = network().train()
    net[3].eval()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    before, modes = copy.deepcopy(net.state_dict()), [part.training for part in net.modules()]
    SCORES[name](net)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert [part.training for part in net.modules()] == modes
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight)) and net[5].weight.grad is None
    assert not any(part._forward_hooks for part in net.modules())


@pytest.mark.parametrize("name", ["grad_norm", "snip", "synflow"])
def test_networks_without_weights_and_overflow_are_refused(name: str) -> None:
    score = {"grad_norm": grad_norm, "snip": snip, "synflow": synflow}[name]
    arguments = (torch.ones(2, 3),) if name == "synflow" else (torch.ones(2, 3), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="`network` is expected to have weights that the score depends on"):
        score(nn.Identity(), *arguments)
    broken = nn.Linear(3, 3)
    broken.weight.data.fill_(math.inf)
    with pytest.raises(DataError, match="The score is expected to be finite, but got"):
        score(broken, *arguments)


def test_naswot_needs_modules_that_switch() -> None:
    with pytest.raises(DataError, match=r"run modules of \['ReLU'\], but got none"):
        naswot(nn.Linear(3, 3), torch.ones(2, 3))
    assert naswot(nn.ELU(), torch.tensor([[1.0, -1.0]]), activations=[nn.ELU]) == pytest.approx(math.log(2))


def test_another_loss() -> None:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(3.0)
    squared = partial(nn.functional.mse_loss)
    assert grad_norm(layer, torch.tensor([[2.0]]), torch.tensor([[1.0]]), squared) == pytest.approx(2 * 5 * 2)


@pytest.mark.parametrize("track", [True, False])
def test_synflow_passes_by_batch_norm_of_one_value_per_channel(track: bool) -> None:
    norm = nn.BatchNorm1d(2, track_running_stats=track)
    net = nn.Sequential(nn.Linear(1, 2, bias=False), norm, nn.Linear(2, 1, bias=False))
    net[0].weight.data = torch.tensor([[1.0], [-2.0]])
    net[2].weight.data = torch.tensor([[3.0, 4.0]])
    # R = 1 * 3 + 2 * 4, once for each of both layers.
    assert synflow(net, torch.zeros(4, 1)) == pytest.approx(22.0)
    assert "forward" not in vars(norm)


def test_synflow_of_a_network_without_running_statistics() -> None:
    arch = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"
    net = nasbench201_network(arch, channels=2, cells_per_stage=1, affine=False, track_running_stats=False)
    assert synflow(net.double(), torch.zeros(1, 3, 4, 4).double()) > 0


def test_synflow_of_batch_norm_called_by_keyword_and_wrapped() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(input=self.layer(x))

    net = Net()
    net.layer.weight.data.fill_(-3.0)
    wrapper = net.norm.forward = partial(nn.BatchNorm1d.forward, net.norm)
    assert synflow(net, torch.zeros(4, 1)) == pytest.approx(3.0)
    assert vars(net.norm)["forward"] is wrapper
    with pytest.raises(RuntimeError):
        synflow(net, torch.zeros(4, 7))
    assert vars(net.norm)["forward"] is wrapper and net.norm.training


def test_products_that_half_precision_cannot_hold() -> None:
    layer = nn.Linear(4, 2, bias=False).half()
    layer.weight.data.fill_(1e-4)
    inputs = torch.full((1, 4), 1e-4, dtype=torch.float16)
    one = layer.weight[0, 0].item() * inputs[0, 0].item()
    assert snip(layer, inputs, inputs, lambda out, _: out.float().sum()) == pytest.approx(8 * one, rel=1e-6)
    layer.weight.data.fill_(6e-8)
    small = nn.Sequential(layer, nn.Linear(2, 1, bias=False).half())
    small[1].weight.data.fill_(1e-3)
    flow = 8 * layer.weight[0, 0].item() * small[1].weight[0, 0].item()  # 0 in half precision
    assert synflow(small, inputs) == pytest.approx(2 * flow, rel=0.01)
