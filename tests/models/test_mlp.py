"""The MLP: its shapes, its initial weights, and that it is the network it says it is."""

import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bigmodel_lab.models import MLP  # noqa: E402  (needs torch)
from bigmodel_lab.models.mlp import INIT_GAIN  # noqa: E402


def batch(n=16, width=20):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, width, generator=g), torch.arange(n) % 3


def test_parameters_and_their_names():
    model = MLP([784, 128, 10])
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes == {
        "layers.0.weight": (128, 784),
        "layers.0.bias": (128,),
        "layers.1.weight": (10, 128),
        "layers.1.bias": (10,),
    }
    assert sum(p.numel() for p in model.parameters()) == 101_770
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("ops", ["torch", "numba"])
@pytest.mark.parametrize("activation", INIT_GAIN)
def test_it_is_the_sequential_network_of_torch(activation, ops):
    model = MLP([20, 8, 6, 3], activation, ops)
    module = {
        "relu": torch.nn.ReLU,
        "gelu": torch.nn.GELU,
        "tanh": torch.nn.Tanh,
        "sigmoid": torch.nn.Sigmoid,
    }[activation]
    layers = [
        torch.nn.Linear(20, 8),
        module(),
        torch.nn.Linear(8, 6),
        module(),
        torch.nn.Linear(6, 3),
    ]
    peer = torch.nn.Sequential(*layers)
    peer.load_state_dict(
        {f"{2 * int(k.split('.')[1])}.{k.split('.')[2]}": v for k, v in model.state_dict().items()}
    )
    x, t = batch()
    torch.testing.assert_close(model(x), peer(x))
    torch.testing.assert_close(model.loss(x, t), torch.nn.functional.cross_entropy(peer(x), t))


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    a = MLP([20, 8, 3], seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    b, other = MLP([20, 8, 3], ops="numba", seed=5), MLP([20, 8, 3], seed=6)
    for p, q, r in zip(a.parameters(), b.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.ndim == 1 or not torch.equal(p, r)


def test_layers_of_one_shape_start_different():
    first, second = MLP([8, 8, 8]).layers
    assert not torch.equal(first.weight, second.weight)


@pytest.mark.parametrize(("activation", "gain"), INIT_GAIN.items())
def test_variance_of_the_initial_weights(activation, gain):
    w = MLP([400, 500, 10], activation).layers[0].weight
    # the standard error of a variance from n normal draws is variance * sqrt(2 / n); five of them
    assert abs(w.var().item() * 400 / gain - 1) < 5 * np.sqrt(2 / w.numel())


def test_relu_keeps_the_size_of_the_signal_through_ten_layers():
    x, _ = batch(64, 256)
    sizes = [(MLP([256] * 12, seed=seed).hidden(x)[10] ** 2).mean().item() for seed in range(10)]
    assert 0.7 < np.mean(sizes) / (x**2).mean() < 1.4  # with half the variance it would be 0.001


def test_hidden_layers():
    model = MLP([20, 8, 6, 3])
    x, _ = batch()
    h = model.hidden(x)
    assert [tuple(a.shape) for a in h] == [(16, 20), (16, 8), (16, 6), (16, 3)]
    assert torch.equal(h[0], x)
    assert torch.equal(h[-1], model(x))
    assert h[1].min() == 0
    assert h[3].min() < 0  # no activation after the last layer


def test_images_are_flattened():
    model = MLP([12, 3])
    x = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(x), model(x.flatten(1)))


@pytest.mark.parametrize("ops", ["torch", "numba"])
def test_one_batch_is_learned_by_heart(ops):
    model = MLP([20, 32, 3], ops=ops)
    x, t = batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        loss = model.loss(x, t)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01


def test_survives_pickling():
    model = MLP([20, 8, 3], ops="numba")
    copy = pickle.loads(pickle.dumps(model))
    x, t = batch()
    assert torch.equal(model.loss(x, t), copy.loss(x, t))


def test_errors():
    with pytest.raises(
        ValueError,
        match=r"^widths must name at least the width in and the width out, got \[784\].$",
    ):
        MLP([784])
    with pytest.raises(ValueError, match=r"^widths\[1\] must be at least 1, got 0.$"):
        MLP([784, 0, 10])
    with pytest.raises(
        ValueError, match=r"^activation must be one of .*, got 'rleu'. Did you mean 'relu'"
    ):
        MLP([784, 10], "rleu")
    with pytest.raises(ValueError, match=r"^ops must be one of 'numba', 'torch', got 'cuda'"):
        MLP([784, 10], ops="cuda")
