"""Optimisers: the same numbers as torch's over 50 steps, interchangeable states, groups, clipping, messages."""

import copy
import math
import pickle

import pytest
import torch

from bigmodel_lab.models import MLP
from bigmodel_lab.train import SGD, AdamW, clip_gradients, decay_groups

KERNELS = ["numba", "torch"]


def model(dtype=torch.float32, seed=0):
    return MLP([64, 24, 5], seed=seed).to(dtype)


def batches(dtype, n=50):
    g = torch.Generator().manual_seed(1)
    for _ in range(n):
        x = torch.randn(8, 64, generator=g, dtype=torch.float64).to(dtype)
        yield x, torch.randint(5, (8,), generator=g)


def train(net, optimizer, n=50):
    for x, y in batches(next(net.parameters()).dtype, n):
        optimizer.zero_grad()
        net.loss(x, y).backward()
        optimizer.step()
    return net


def difference(a, b):
    return max(
        (p - q).abs().max().item() for p, q in zip(a.parameters(), b.parameters(), strict=True)
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("ops", KERNELS)
def test_adamw_is_torch_s_over_50_steps_with_groups(ops, dtype, tolerance):
    """Weights as a model's, within 0.8: tests/ops/test_adamw.py says why torch's float32 is off where they are larger."""
    settings = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    ours, theirs = model(dtype), model(dtype)
    optimizer = AdamW(decay_groups(ours, 0.1), ops=ops, **settings)
    peer = torch.optim.AdamW(decay_groups(theirs, 0.1), **settings)
    for x, y in batches(dtype):
        peer.zero_grad()
        theirs.loss(x, y).backward()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = q.grad.clone()  # gradients of its own would let training amplify the rounding
        optimizer.step()
        peer.step()
    assert difference(ours, model(dtype)) > 0.01  # they moved
    assert difference(ours, theirs) <= tolerance
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.0]


@pytest.mark.parametrize(
    "settings", [{}, {"momentum": 0.9}, {"momentum": 0.9, "weight_decay": 0.1}]
)
def test_sgd_is_torch_s_to_the_bit(settings):
    ours, theirs = model(), model()
    train(ours, SGD(ours.parameters(), lr=0.05, **settings))
    train(theirs, torch.optim.SGD(theirs.parameters(), lr=0.05, **settings))
    assert difference(ours, model()) > 0.01
    assert difference(ours, theirs) == 0


@pytest.mark.parametrize("make", [
    lambda p: AdamW(p, lr=1e-3), lambda p: AdamW(p, lr=1e-3, ops="torch"), lambda p: SGD(p, lr=0.05, momentum=0.9),
])  # fmt: skip
def test_a_loaded_state_goes_on_to_the_bit(make):
    straight = model()
    train(straight, make(straight.parameters()), 20)
    first = model()
    optimizer = make(first.parameters())
    data = list(batches(torch.float32, 20))

    def some(net, optimizer, part):
        for x, y in part:
            optimizer.zero_grad()
            net.loss(x, y).backward()
            optimizer.step()

    some(first, optimizer, data[:7])
    second = model(seed=5)
    second.load_state_dict(first.state_dict())
    again = make(second.parameters())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    some(second, again, data[7:])
    assert difference(second, straight) == 0


@pytest.mark.parametrize("ops", KERNELS)
def test_states_go_from_torch_to_ours_and_back(ops):
    straight, net = model(torch.float64), model(torch.float64)
    theirs = torch.optim.AdamW(straight.parameters(), lr=1e-3)
    train(straight, theirs, 3)
    net.load_state_dict(straight.state_dict())
    ours = AdamW(net.parameters(), lr=1e-3, ops=ops)
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    train(straight, theirs, 3)
    train(net, ours, 3)
    back = torch.optim.AdamW(net.parameters(), lr=1e-3)
    back.load_state_dict(ours.state_dict())
    train(straight, theirs, 3)
    train(net, back, 3)
    assert difference(net, straight) < 1e-13


def test_a_copied_or_pickled_optimiser_keeps_its_kernels():
    optimizer = AdamW(model().parameters(), ops="torch")
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert other.defaults["ops"] == "torch"
        other.step()


@pytest.mark.parametrize("ops", KERNELS)
def test_parameters_without_a_gradient_stay(ops):
    a, b = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    b.grad = torch.ones(3)
    optimizer = AdamW([a, b], ops=ops)
    optimizer.step()
    assert a.tolist() == [1, 1, 1]
    assert (b < 1).all()
    assert a not in optimizer.state


@pytest.mark.parametrize("optimizer", [AdamW, SGD])
def test_closure_is_called_with_gradients_on(optimizer):
    p = torch.nn.Parameter(torch.ones(3))
    o = optimizer([p])

    def closure():
        o.zero_grad()
        (value := (p * p).sum()).backward()
        return value

    assert o.step(closure).item() == 3
    assert (p < 1).all()


def test_a_scalar_parameter_and_an_expanded_gradient():
    scalar, vector = torch.nn.Parameter(torch.tensor(1.0)), torch.nn.Parameter(torch.ones(4))
    scalar.grad, vector.grad = torch.tensor(2.0), torch.tensor(3.0).expand(4)
    assert not vector.grad.is_contiguous()
    AdamW([scalar, vector], lr=0.1, weight_decay=0).step()
    assert scalar.item() == pytest.approx(0.9)
    assert vector.tolist() == pytest.approx([0.9] * 4)


def test_autograd_notices_a_step_between_forward_and_backward():
    w = torch.nn.Parameter(torch.ones(3))
    y = (w * w).sum()
    y.backward(retain_graph=True)
    AdamW([w]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_decay_groups_split_by_dimensions_and_leave_frozen_ones_out():
    net = torch.nn.Sequential(
        torch.nn.Embedding(7, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 7)
    )
    net[2].weight = net[0].weight  # tied: one parameter
    decay, plain = decay_groups(net, 0.1)
    assert [tuple(p.shape) for p in decay["params"]] == [(7, 4)]
    assert [tuple(p.shape) for p in plain["params"]] == [(4,), (4,), (7,)]
    assert (decay["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    net[1].requires_grad_(False)
    net[2].bias.requires_grad_(False)
    (only,) = decay_groups(net, 0.1)
    assert only["params"][0] is net[0].weight


@pytest.mark.parametrize("max_norm", [0.01, 0.5, 1e3, math.inf])
def test_clipping_is_torch_s(max_norm):
    ours, theirs = model(), model()
    for net in (ours, theirs):
        x, y = next(batches(torch.float32))
        net.loss(x, y).backward()
    norm = clip_gradients(ours.parameters(), max_norm)
    assert norm == torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm).item()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=0)
    by_hand = math.sqrt(sum(p.grad.double().square().sum() for p in ours.parameters()))
    assert by_hand == pytest.approx(min(norm, max_norm), rel=1e-4)


def test_clipping_leaves_what_is_not_finite_and_what_has_no_gradient():
    p, q = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    assert clip_gradients([p, q], 1.0) == 0.0
    p.grad = torch.tensor([3.0, math.inf])
    assert clip_gradients([p, q], 1.0) == math.inf
    assert p.grad.tolist() == [3.0, math.inf]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"ops": "nunba"},
            "ops must be one of 'numba', 'torch', got 'nunba'. Did you mean 'numba'",
        ),
        ({"lr": -1}, "lr must be at least 0, got -1"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\] must be at least 0 and below 1, got 1.0"),
        ({"eps": -1}, "eps must be at least 0"),
        ({"weight_decay": -1}, "weight_decay must be at least 0"),
    ],
)
def test_adamw_messages(settings, message):
    with pytest.raises(ValueError, match=message):
        AdamW([torch.nn.Parameter(torch.ones(1))], **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1}, "lr must be at least 0, got -1"),
        ({"weight_decay": -1}, "weight_decay must be at least 0"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, got 1.0"),
    ],
)
def test_sgd_messages(settings, message):
    with pytest.raises(ValueError, match=message):
        SGD([torch.nn.Parameter(torch.ones(1))], **settings)


def test_a_group_s_own_settings_are_checked_too():
    with pytest.raises(ValueError, match="weight_decay must be at least 0"):
        AdamW([{"params": [torch.nn.Parameter(torch.ones(1))], "weight_decay": -1}])


def test_messages_of_a_step():
    p = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    p.grad = torch.ones_like(p)
    with pytest.raises(TypeError, match=r'bfloat16.*ops="torch"'):
        AdamW([p]).step()
    meta = torch.nn.Parameter(torch.ones(1, device="meta"))
    meta.grad = torch.ones_like(meta)
    with pytest.raises(ValueError, match='on the CPU, got one on meta: use ops="torch"'):
        AdamW([meta]).step()
    strided = torch.nn.Parameter(torch.ones(4, 3).T)
    strided.grad = torch.ones(3, 4)
    with pytest.raises(ValueError, match="p is changed in place, so it must be C-contiguous"):
        AdamW([strided]).step()
    table = torch.nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match="dense gradients"):
        AdamW(table.parameters()).step()
    with pytest.raises(ValueError, match="max_norm must be above 0, got 0"):
        clip_gradients([p], 0)
