"""The convolutional network: it is torch's network of the same form, it is the same on either kernels, and it learns."""

import pickle

import pytest

torch = pytest.importorskip("torch")

from bigmodel_lab import data  # noqa: E402
from bigmodel_lab.models import CNN  # noqa: E402  (needs torch)


def batch(n=6, image=(1, 13, 10), dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, *image, generator=g).to(dtype), torch.arange(n) % 3


def twin(model):
    """The network from torch.nn, in the usual order: convolution, relu, pooling."""
    layers = []
    for conv in model.convs:
        peer = torch.nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1)
        peer.load_state_dict(conv.state_dict())
        layers += [peer, torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    head = torch.nn.Linear(model.head.in_features, model.head.out_features)
    head.load_state_dict(model.head.state_dict())
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), head).to(model.head.weight.dtype)


@pytest.mark.parametrize("ops", ["torch", "numba"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
def test_it_is_the_network_of_torch(ops, dtype, atol):
    model = CNN([1, 4, 5, 7], (13, 10), 3, ops=ops).to(dtype)
    peer = twin(model)
    x, t = batch(dtype=dtype)
    logits = model(x)
    torch.testing.assert_close(logits, peer(x), rtol=0, atol=atol)
    ours, theirs = model.loss(x, t), torch.nn.functional.cross_entropy(peer(x), t)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)
    ours.backward()
    theirs.backward()
    for (name, p), q in zip(model.named_parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=atol, msg=name)


def test_parameters_and_their_names():
    model = CNN()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes == {
        "convs.0.weight": (16, 1, 3, 3),
        "convs.0.bias": (16,),
        "convs.1.weight": (32, 16, 3, 3),
        "convs.1.bias": (32,),
        "head.weight": (10, 32 * 7 * 7),
        "head.bias": (10,),
    }


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    model, same, other = CNN(), CNN(ops="numba"), CNN(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for p, q, r in zip(model.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.ndim == 1 or not torch.equal(p, r)
    w = model.convs[1].weight
    assert abs(w.var().item() * 9 * 16 / 2 - 1) < 0.1


def test_features():
    model = CNN([2, 3, 4], (9, 6), 3)
    x, _ = batch(image=(2, 9, 6))
    maps = model.features(x)
    assert [tuple(m.shape) for m in maps] == [(6, 2, 9, 6), (6, 3, 4, 3), (6, 4, 2, 1)]
    assert all((m >= 0).all() for m in maps[1:])
    grey = CNN([1, 3], (13, 10), 3)
    x, _ = batch()
    assert torch.equal(grey(x), grey(x[:, 0]))


def test_moving_the_image_moves_the_features():
    model = CNN([1, 4], (12, 12), 3)
    x = torch.zeros(1, 1, 12, 12)
    x[..., 2:6, 2:6] = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    there = model.features(x.roll((4, 2), (2, 3)))[1]
    torch.testing.assert_close(there, model.features(x)[1].roll((2, 1), (2, 3)))


@pytest.mark.parametrize("ops", ["torch", "numba"])
def test_it_learns_to_read_digits(ops):
    """300 images of MNIST, seen 4 times: 100 that were not seen are read 7 of 10 right at the least (chance: 1)."""
    x, t = (torch.from_numpy(a) for a in data.load("mnist").pixels("train"))
    x, t = x.reshape(-1, 28, 28)[:400], t[:400]
    model = CNN([1, 8, 16], ops=ops)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(40):
        rows = slice(step % 10 * 30, step % 10 * 30 + 30)
        optimizer.zero_grad()
        model.loss(x[rows], t[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        assert (model(x[300:]).argmax(1) == t[300:]).float().mean() > 0.7


def test_survives_pickling():
    model = CNN([1, 2], (13, 10), 3, ops="numba")
    copy = pickle.loads(pickle.dumps(model))
    assert torch.equal(model.loss(*batch()), copy.loss(*batch()))


def test_errors():
    with pytest.raises(ValueError, match=r"^channels must name those of the image and of at least"):
        CNN([1])
    with pytest.raises(ValueError, match=r"^channels\[1\] must be at least 1, got 0"):
        CNN([1, 0])
    with pytest.raises(ValueError, match=r"^classes must be at least 1, got 0"):
        CNN(classes=0)
    with pytest.raises(ValueError, match=r"^kernel must be odd, .*, got 4"):
        CNN(kernel=4)
    with pytest.raises(
        ValueError, match=r"^3 blocks halve the image 3 times, so it needs at least 8 x 8 .* 7 x 9"
    ):
        CNN([1, 2, 2, 2], (7, 9))
    with pytest.raises(ValueError, match=r"^ops must be one of 'numba', 'torch', got 'cuda'"):
        CNN(ops="cuda")
    with pytest.raises(
        ValueError, match=r"^x must have shape \(N, 1, 28, 28\), got \(2, 1, 28, 20\)"
    ):
        CNN()(torch.zeros(2, 28, 20))
