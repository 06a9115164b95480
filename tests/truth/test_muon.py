"""Muon: the matrices it steps by, and what it leaves to AdamW."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from waferlens.train.muon import Muon, orthogonalized  # noqa: E402


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape) * torch.logspace(-1, 0, shape[1])
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonalized(matrix)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.5
    assert values.max() < 1.3
    # the same row and column spaces, in the same pairs
    inside = u.T @ made @ v.T
    assert torch.allclose(inside, torch.diag(inside.diagonal()), atol=2e-3)


def test_the_output_biases_and_norms_learn_as_by_adamw() -> None:
    def network() -> torch.nn.Sequential:
        torch.manual_seed(1)
        return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.LayerNorm(5), torch.nn.ReLU(), torch.nn.Linear(5, 3))

    ours, theirs = network(), network()
    muon = Muon(ours, lr=1e-2, muon_lr=0.0, weight_decay=0.1)
    held = theirs[0].weight
    adamw = torch.optim.AdamW(
        [weight for weight in theirs.parameters() if weight is not held], lr=1e-2, weight_decay=0.1
    )
    for seed in range(5):
        torch.manual_seed(10 + seed)
        x = torch.randn(7, 6)
        for model, optimizer in ((ours, muon), (theirs, adamw)):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, reference, atol=1e-6)
    assert [group["orthogonal"] for group in muon.param_groups] == [True, False]
    assert [id(weight) for weight in muon.param_groups[0]["params"]] == [id(ours[0].weight)]


def test_a_resumed_optimizer_takes_the_same_steps() -> None:
    torch.manual_seed(2)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 3))
    x = torch.randn(2, 1, 8, 8)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    first = Muon(network, 1e-3, 0.02)
    for _ in range(3):
        step(network, first)
    saved, weights = (
        copy.deepcopy(first.state_dict()),
        {name: value.clone() for name, value in network.state_dict().items()},
    )
    step(network, first)
    again = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 3))
    again.load_state_dict(weights)
    second = Muon(again, 1e-3, 0.02)
    second.load_state_dict(saved)
    step(again, second)
    for one, other in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
