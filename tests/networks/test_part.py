"""Modules of a network run on what another one says: arguments, items of lists, gradients, and what stays as it is."""

import pytest
import torch
from torch import nn

from distill_app.networks.part import NetworkPart


class Sum(nn.Module):
    def forward(self, first, second, *, factor=1.0):
        return first + factor * second


def test_gradients_flow_through_into_what_goes_in_and_nowhere_else():
    layer, norm = nn.Linear(3, 2).requires_grad_(False), nn.BatchNorm1d(2).requires_grad_(False)
    part = NetworkPart([(layer, False), (norm, False)]).train()
    before = norm.running_mean.clone()
    source = torch.randn(4, 3, requires_grad=True)
    part(source).square().sum().backward()
    assert source.grad.abs().sum() > 0 and layer.weight.grad is None
    assert not norm.training and norm.running_mean.equal(before), "it runs as in the frozen network"
    assert not list(part.parameters()) and not part.state_dict()


def test_a_list_and_a_mapping_are_arguments_and_one_address_is_one_argument():
    one, two = torch.ones(2), torch.full((2,), 3.0)
    module = [(Sum(), False)]
    assert NetworkPart(module, several=True)([one, two]).tolist() == [4.0, 4.0]
    assert NetworkPart(module, several=True)({"second": one, "first": two}).tolist() == [4.0, 4.0]
    assert NetworkPart([(nn.Flatten(0), False)])(torch.ones(2, 2)).shape == (4,)


def test_a_module_runs_once_for_each_item_of_lists_and_mappings():
    levels, others = [torch.ones(2), torch.ones(3)], [torch.ones(2), torch.zeros(3)]
    chain = [(Sum(), True), (nn.ReLU(), True)]
    assert [each.sum().item() for each in NetworkPart(chain, several=True)([levels, others])] == [4.0, 3.0]
    named = {"first": {"p2": levels[0]}, "second": {"p2": others[0]}}
    assert NetworkPart(chain, several=True)(named)["p2"].tolist() == [2.0, 2.0]
    for wrong in ([levels, others[:1]], [levels[0], others]):
        with pytest.raises(ValueError, match="items of one list are needed"):
            NetworkPart(chain, several=True)(wrong)


@pytest.mark.parametrize("chain", [[nn.ReLU(inplace=True)], [nn.Flatten(), nn.ReLU(inplace=True)]])
def test_a_part_that_begins_in_place_leaves_what_goes_in_as_it_is(chain):
    part = NetworkPart([(module, False) for module in chain])
    source = torch.tensor([[-1.0, 2.0]])
    for _ in range(2):
        assert part(source).tolist() == [[0.0, 2.0]] and source.tolist() == [[-1.0, 2.0]]
