"""The operations inside torch: gradcheck, no_grad, checkpoint, in-place changes, the same training run, messages."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bigmodel_lab.models import MLP  # noqa: E402  (needs torch)
from bigmodel_lab.ops import conv2d, conv2d_backward  # noqa: E402
from bigmodel_lab.ops.torch import backend, bind  # noqa: E402

OURS, THEIRS = backend("numba"), backend("torch")
TARGETS = torch.tensor([0, 3, 1])


def tensor(*shape, seed=0, dtype=torch.float64, grad=True):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=dtype).requires_grad_(grad)


def cell_inputs(rows):
    shapes = (3, 4), (3, 5), (rows, 4), (rows, 5), (rows,), (rows,)
    return [tensor(*shape, seed=s) for s, shape in enumerate(shapes)]


CALLS = {
    "linear": lambda ops: (ops.linear, [tensor(3, 4), tensor(5, 4, seed=1), tensor(5, seed=2)]),
    "linear, no bias": lambda ops: (ops.linear, [tensor(3, 4), tensor(5, 4, seed=1)]),
    "linear, three dimensions": lambda ops: (
        ops.linear,
        [tensor(2, 3, 4), tensor(5, 4, seed=1), tensor(5, seed=2)],
    ),
    "relu": lambda ops: (ops.relu, [tensor(3, 4)]),
    "sigmoid": lambda ops: (ops.sigmoid, [tensor(3, 4)]),
    "tanh": lambda ops: (ops.tanh, [tensor(3, 4)]),
    "gelu": lambda ops: (ops.gelu, [tensor(3, 4)]),
    "gelu, tanh form": lambda ops: (lambda x: ops.gelu(x, approximate="tanh"), [tensor(3, 4)]),
    "softmax_cross_entropy": lambda ops: (
        lambda x: ops.softmax_cross_entropy(x, TARGETS),
        [tensor(3, 4)],
    ),
    "silu": lambda ops: (ops.silu, [tensor(3, 4)]),
    "swiglu": lambda ops: (ops.swiglu, [tensor(3, 4), tensor(3, 4, seed=1)]),
    "softmax": lambda ops: (ops.softmax, [tensor(2, 3, 4)]),
    "softmax, causal": lambda ops: (lambda x: ops.softmax(x, causal=True), [tensor(2, 3, 4)]),
    "layernorm": lambda ops: (
        ops.layernorm,
        [tensor(2, 3, 4), tensor(4, seed=1), tensor(4, seed=2)],
    ),
    "rmsnorm": lambda ops: (ops.rmsnorm, [tensor(2, 3, 4), tensor(4, seed=1)]),
    "embedding": lambda ops: (
        lambda w: ops.embedding(torch.tensor([[1, 0], [1, 3]]), w),
        [tensor(4, 3)],
    ),
    "rope": lambda ops: (
        lambda x: ops.rope(
            x, *(f(torch.arange(6.0).double().reshape(3, 2)) for f in (torch.cos, torch.sin))
        ),
        [tensor(2, 3, 4)],
    ),
    "attention": lambda ops: (ops.attention, [tensor(2, 2, 3, 4, seed=s) for s in range(3)]),
    "attention, grouped, after a cache": lambda ops: (
        ops.attention,
        [tensor(1, 4, 2, 3), tensor(1, 2, 5, 3, seed=1), tensor(1, 2, 5, 3, seed=2)],
    ),
    "attention, one query": lambda ops: (
        ops.attention,
        [tensor(1, 2, 1, 3), tensor(1, 2, 5, 3, seed=1), tensor(1, 2, 5, 3, seed=2)],
    ),
    "attention, all see all": lambda ops: (
        lambda q, k, v: ops.attention(q, k, v, causal=False, scale=0.7),
        [tensor(1, 2, 4, 3), tensor(1, 2, 3, 3, seed=1), tensor(1, 2, 3, 3, seed=2)],
    ),
    "attention, with padding": lambda ops: (
        lambda q, k, v: ops.attention(q, k, v, causal=False, lengths=torch.tensor([3, 1])),
        [tensor(2, 2, 2, 3), tensor(2, 2, 3, 3, seed=1), tensor(2, 2, 3, 3, seed=2)],
    ),
    "attention, causal with padding": lambda ops: (
        lambda q, k, v: ops.attention(q, k, v, lengths=torch.tensor([4, 2])),
        [tensor(2, 2, 2, 3), tensor(2, 2, 4, 3, seed=1), tensor(2, 2, 4, 3, seed=2)],
    ),
    "conv2d": lambda ops: (
        lambda x, w, b: ops.conv2d(x, w, b, (2, 1), padding=1),
        [tensor(2, 3, 4, 5), tensor(2, 3, 3, 2, seed=1), tensor(2, seed=2)],
    ),
    "conv2d, no bias": lambda ops: (ops.conv2d, [tensor(1, 2, 3, 4), tensor(3, 2, 2, 2, seed=1)]),
    "maxpool2d": lambda ops: (lambda x: ops.maxpool2d(x, 2), [tensor(2, 3, 4, 5)]),
    "maxpool2d, overlapping": lambda ops: (
        lambda x: ops.maxpool2d(x, 3, stride=(2, 1), padding=(1, 0)),
        [tensor(1, 2, 5, 6)],
    ),
    "rnn_cell": lambda ops: (ops.rnn_cell, cell_inputs(5)),
    "rnn_cell, relu, no biases": lambda ops: (
        lambda *args: ops.rnn_cell(*args, nonlinearity="relu"),
        cell_inputs(5)[:4],
    ),
    "rnn_cell, input ready-made": lambda ops: (
        lambda x, h, w, b: ops.rnn_cell(x, h, None, w, None, b),
        [tensor(3, 5), *(cell_inputs(5)[i] for i in (1, 3, 5))],
    ),
    "gru_cell": lambda ops: (ops.gru_cell, cell_inputs(15)),
    "gru_cell, no biases": lambda ops: (ops.gru_cell, cell_inputs(15)[:4]),
    "gru_cell, input ready-made": lambda ops: (
        lambda x, h, w, b: ops.gru_cell(x, h, None, w, None, b),
        [tensor(3, 15), *(cell_inputs(15)[i] for i in (1, 3, 5))],
    ),
    "linear_cross_entropy": lambda ops: (
        lambda h, w: ops.linear_cross_entropy(h, w, TARGETS, chunk=2),
        [tensor(3, 4), tensor(5, 4, seed=1)],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_gradcheck(name):
    assert torch.autograd.gradcheck(*CALLS[name](OURS))


@pytest.mark.parametrize("name", CALLS)
def test_both_backends_are_the_same_function(name):
    f, inputs = CALLS[name](OURS)
    g, _ = CALLS[name](THEIRS)
    y, want = f(*inputs), g(*inputs)
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(y, inputs, dy), torch.autograd.grad(want, inputs, dy), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CALLS)
def test_without_gradient(name):
    f, inputs = CALLS[name](OURS)
    with torch.no_grad():
        y = f(*inputs)
    assert not y.requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(f(*inputs), y)
    torch.testing.assert_close(f(*(t.detach() for t in inputs)), y)


@pytest.mark.parametrize("wanted", [(False, True, True), (True, False, True), (True, True, False)])
def test_linear_when_not_all_arguments_want_a_gradient(wanted):
    def gradients(ops):
        inputs = [tensor(3, 4), tensor(5, 4, seed=1), tensor(5, seed=2)]
        inputs = [
            t.requires_grad_(w) if w else t.detach() for t, w in zip(inputs, wanted, strict=True)
        ]
        (ops.linear(*inputs) ** 2).sum().backward()
        return [t.grad for t in inputs]

    for got, want in zip(gradients(OURS), gradients(THEIRS), strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_a_change_in_place_before_backward_is_noticed():
    for name in ("relu", "gelu"):
        x = tensor(3, 4) * 1
        y = getattr(OURS, name)(x)
        (x if name == "gelu" else y).detach().mul_(2)  # of what the cache keeps
        with pytest.raises(RuntimeError, match=r"modified by an inplace operation"):
            y.sum().backward()


def test_twice_backward_and_scaled_loss():
    logits = tensor(3, 4)
    loss = OURS.softmax_cross_entropy(logits, TARGETS)
    (once,) = torch.autograd.grad(loss, logits, retain_graph=True)
    loss.backward(retain_graph=True)
    logits.grad.mul_(2)  # an optimiser's business; the graph keeps its own
    (3 * loss).backward(retain_graph=True)
    torch.testing.assert_close(logits.grad, 5 * once)
    once.mul_(0)  # but this is the array that the graph keeps
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", CALLS)
def test_a_gradient_of_a_gradient_is_refused(name):
    f, inputs = CALLS[name](OURS)
    with pytest.raises(
        RuntimeError, match=r"has no gradient of its gradient: use backend\(.torch.\)"
    ):
        torch.autograd.grad(f(*inputs).sum(), inputs, create_graph=True)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpoint(name, reentrant):
    from torch.utils.checkpoint import checkpoint

    f, inputs = CALLS[name](OURS)

    def block(*args):
        return f(*args).tanh()

    y = block(*inputs)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    want = torch.autograd.grad(y, inputs, dy)
    again = checkpoint(block, *inputs, use_reentrant=reentrant)
    torch.testing.assert_close(again, y, rtol=0, atol=0)
    again.backward(dy)
    for t, w in zip(inputs, want, strict=True):
        torch.testing.assert_close(t.grad, w, rtol=0, atol=0)


def test_convolution_of_data_computes_no_gradient_of_it():
    asked = []

    def backward(dy, cache, *, need_dx=True):
        asked.append(need_dx)
        return conv2d_backward(dy, cache, need_dx=need_dx)

    bound = bind(conv2d, backward, optional_dx=True)
    x, w = tensor(1, 2, 3, 4, grad=False), tensor(3, 2, 2, 2, seed=1)
    for wanted in (False, True):
        y = bound(x.requires_grad_(wanted), w)
        grads = torch.autograd.grad(y.sum(), (x, w) if wanted else (w,))
        want = torch.autograd.grad(THEIRS.conv2d(x, w).sum(), (x, w) if wanted else (w,))
        torch.testing.assert_close(grads, want)
    assert asked == [False, True]


@pytest.mark.parametrize("reentrant", [False, True])
def test_dropout_draws_its_mask_from_torch_and_finds_it_again_under_checkpoint(reentrant):
    from torch.utils.checkpoint import checkpoint

    x = tensor(3, 40)
    torch.manual_seed(3)
    want = OURS.dropout(x, 0.5)
    torch.manual_seed(3)
    y = checkpoint(lambda x: OURS.dropout(x, 0.5), x, use_reentrant=reentrant)
    torch.testing.assert_close(y, want, rtol=0, atol=0)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y != 0) * 2.0 + 0 * x.detach())
    assert not torch.equal(OURS.dropout(x, 0.5), want)  # the next mask is another
    assert OURS.dropout(x, 0.5, False) is x
    assert 20 < (THEIRS.dropout(x, 0.5, True) == 0).sum() < 100


def test_attention_on_tensors_as_a_model_has_them():
    qkv = tensor(2, 5, 3, 4, 6)  # (B, T, q k v, H, K), of which heads are views
    y = {
        o: ops.attention(*qkv.permute(2, 0, 3, 1, 4))
        for o, ops in (("ours", OURS), ("theirs", THEIRS))
    }
    torch.testing.assert_close(y["ours"], y["theirs"])
    grads = [torch.autograd.grad((t**2).sum(), qkv)[0] for t in y.values()]
    torch.testing.assert_close(*grads)


def test_tensors_that_are_not_contiguous():
    x = tensor(4, 3).T
    want = THEIRS.tanh(x).sum()  # sum's gradient is one number in all places, stride 0
    got = OURS.tanh(x).sum()
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, x), torch.autograd.grad(want, x))


def test_memory_is_shared_not_copied():
    x = tensor(3, 4, grad=False)
    seen = []

    def identity(a):
        seen.append(a.ctypes.data)
        return a.copy(), (a,)

    bind(identity, lambda dy, cache: dy)(x)
    assert seen == [x.data_ptr()]


# float32: the gradients agree to 1e-6; what differs in 20 steps of SGD at learning rate 0.1 stays of that size
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "sigmoid"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_same_losses_over_20_steps_of_training(activation, dtype, tolerance):
    x, t = tensor(64, 20, dtype=dtype, grad=False), torch.arange(64) % 5
    losses = {}
    for ops in ("numba", "torch"):
        model = MLP([20, 32, 16, 5], activation, ops, seed=3).to(dtype)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        losses[ops] = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = model.loss(x, t)
            loss.backward()
            optimizer.step()
            losses[ops].append(loss.item())
    assert losses["torch"][-1] < losses["torch"][0]
    np.testing.assert_allclose(losses["numba"], losses["torch"], rtol=tolerance)


def test_both_backends_offer_the_same_operations():
    from bigmodel_lab.ops import torch as public

    assert vars(OURS).keys() == vars(THEIRS).keys() == {*public.__all__} - {"backend", "bind"}
    documented = public.backend.__doc__
    for name in vars(OURS):
        assert getattr(public, name) is getattr(OURS, name)
        assert name in documented


def test_errors():
    with pytest.raises(
        ValueError, match=r"^ops must be one of 'numba', 'torch', got 'Numba'. Did you mean 'numba'"
    ):
        backend("Numba")
    with pytest.raises(TypeError, match=r"^relu got a torch.bfloat16 tensor: .*backend\(.torch.\)"):
        OURS.relu(torch.zeros(3, dtype=torch.bfloat16))
    with pytest.raises(
        ValueError, match=r"^relu got a tensor on meta: the numba kernels run on the CPU"
    ):
        OURS.relu(torch.zeros(3, device="meta"))
    with pytest.raises(TypeError, match=r"^linear got a torch.float16 tensor"):
        OURS.linear(*(torch.zeros(3, 3, dtype=torch.float16) for _ in range(2)))
    with pytest.raises(ValueError, match=r"^targets\[1\] is 4"):
        OURS.softmax_cross_entropy(tensor(3, 4), torch.tensor([0, 4, 1]))
