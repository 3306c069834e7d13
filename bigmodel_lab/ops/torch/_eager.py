"""The same operations, names and arguments as ours, from torch.nn.functional."""

import torch
import torch.nn.functional as F

linear = F.linear
relu, sigmoid, tanh, gelu, silu = F.relu, torch.sigmoid, torch.tanh, F.gelu, F.silu
embedding = F.embedding
dropout = F.dropout
softmax_cross_entropy = F.cross_entropy
conv2d = F.conv2d
maxpool2d = F.max_pool2d


def swiglu(a, b):
    return F.silu(a) * b


def layernorm(x, g, b, eps=1e-5):
    return F.layer_norm(x, g.shape, g, b, eps)


def rmsnorm(x, g, eps=1e-6):
    return F.rms_norm(x, g.shape, g, eps)


def linear_cross_entropy(h, w, targets, chunk=None):
    return F.cross_entropy(F.linear(h, w), targets)


def softmax(x, causal=False):
    if causal:
        T, V = x.shape[-2:]
        hidden = torch.ones(T, V, dtype=torch.bool, device=x.device).triu(V - T + 1)
        x = x.masked_fill(hidden, -torch.inf)
    return x.softmax(-1)


def rope(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def attention(q, k, v, causal=True, scale=None, lengths=None):
    T, S, options = q.shape[2], k.shape[2], {"scale": scale, "enable_gqa": q.shape[1] != k.shape[1]}
    # is_causal would count from the first position, and cannot be given together with a mask
    if lengths is not None or (causal and 1 < T < S):
        seen = torch.ones(T, S, dtype=torch.bool, device=q.device)
        seen = seen.tril(S - T) if causal else seen
        if lengths is not None:
            seen = seen & (torch.arange(S, device=q.device) < lengths[:, None])[:, None, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, **options)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal and T == S, **options)


def rnn_cell(x, h, w_ih, w_hh, b_ih=None, b_hh=None, nonlinearity="tanh"):
    f = torch.relu if nonlinearity == "relu" else torch.tanh
    return f((x if w_ih is None else F.linear(x, w_ih, b_ih)) + F.linear(h, w_hh, b_hh))


def gru_cell(x, h, w_ih, w_hh, b_ih=None, b_hh=None):
    if w_ih is not None:
        return torch.gru_cell(x, h, w_ih, w_hh, b_ih, b_hh)
    (xr, xz, xn), (hr, hz, hn) = x.chunk(3, -1), F.linear(h, w_hh, b_hh).chunk(3, -1)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    n = torch.tanh(xn + r * hn)
    return n + z * (h - n)
