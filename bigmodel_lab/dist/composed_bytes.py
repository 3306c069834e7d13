"""What each rank of a data x tensor x pipeline grid sends in one training step, to the byte, from the shapes alone.

Of D replicas, W ranks that share each matrix, and P stages; a message's size is that of what is cut, by `predicted_bytes`:

    tensor      every layer, twice going forward and twice backward: all-reduce of the stream, B T width numbers; with
                sequence parallelism an all-gather and a reduce-scatter of it instead. Once more each for embedding and logits;
                and of the loss, of 3 B T numbers
    pipeline    every micro-batch, at every boundary: its stream forward and the stream's gradient back
    data        every parameter's gradient: all-reduce; ZeRO's reduce-scatter and all-gather (stage 2: the former for
                each micro-batch; stage 3: both, and the latter twice)
    the rest    a tied embedding's gradient between the ends of the pipeline, the gradient's norm, the loss

Source: Narayanan et al. (2021), arXiv:2104.04473, section 3.2; Rajbhandari et al. (2020), arXiv:1910.02054, section 7. Derived in
lab L05. Letters: B rows of a micro-batch, T positions.
"""

from collections import Counter

from bigmodel_lab.dist.collectives import chunk_sizes
from bigmodel_lab.dist.pipeline_schedule import schedule as passes_of
from bigmodel_lab.dist.sharded_gpt import cut_layers
from bigmodel_lab.dist.wire import predicted_bytes
from bigmodel_lab.models.config import GPTConfig
from bigmodel_lab.train import Layout

__all__ = ["step_bytes"]


def step_bytes(
    config: GPTConfig,
    layout: Layout,
    rank: int,
    *,
    rows: int,
    positions: int,
    micros: int = 1,
    schedule: str = "1f1b",
    chunks: int = 1,
    sequence: bool = False,
    clip: bool = False,
    element_bytes: int = 4,
) -> dict[str, int]:
    """Return the payload in bytes that `rank` sends in one `Composed.step`, by collective, those that are not 0.

    Parameters
    ----------
    config, layout, micros, schedule, chunks, sequence : as given to `Composed`, all parameters being trained
    rank : counted over the whole grid
    rows, positions : of the whole batch
    clip : the gradient is clipped by its norm
    element_bytes : of parameters and activations; the loss and the norm have 8

    Raises ValueError for zero=2 with chunks, where it depends on the schedule how often a gradient is reduced.
    """
    if layout.zero >= 2 and chunks > 1:
        raise ValueError(
            f"zero={layout.zero} with chunks={chunks} has no formula: use zero=1, or chunks=1."
        )
    P, D, W = layout.pp, layout.dp, layout.tp
    pipe, data, tensor = (P, rank // (D * W)), (D, rank // W % D), (W, rank % W)  # ranks, place
    cuts = cut_layers(config.n_layers, P * chunks)
    stages = [cuts[k * P + pipe[1]] for k in range(chunks)]
    sent = _Sent(element_bytes)
    for B in chunk_sizes(chunk_sizes(rows, D)[data[1]], micros):
        for layers in stages:
            _passes(sent, config, layers, B * positions, tensor, sequence)
            stream = B * positions * config.width * element_bytes // (W if sequence else 1)
            sent["activations"] += stream * (layers.stop < config.n_layers and P > 1)
            sent["gradients"] += stream * (layers.start > 0 and P > 1)
    if sequence:
        for layers in stages:
            whole = len(layers) * _whole_of_layer(config) + _whole_of_ends(config, layers)
            sent.add("all_reduce", whole, tensor)
    if config.tied and P > 1 and pipe[1] in (0, P - 1):
        words = chunk_sizes(config.vocab_size, W)[tensor[1]]
        sent["tied"] += words * config.width * element_bytes
    blocks, rest = _parameters(config, stages, tensor)
    _replicas(sent, layout.zero, blocks, rest, data, micros, _gathers(pipe, micros, schedule))

    sent.size = 8  # of what follows
    if clip:
        for line in (tensor, pipe, data) if layout.zero else (tensor, pipe):
            sent.add("all_reduce", 1, line)
    sent.add("broadcast", 1, pipe, root=P - 1)  # the loss to all stages,
    sent.add("all_reduce", 1, data)  # and summed over the replicas
    return dict(+sent)


class _Sent(Counter):
    """Bytes by collective; `size` is that of an element."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def add(self, collective, n, line, times=1, root=0) -> None:
        """Count `times` calls on n elements by the rank that is at line[1] of the line[0] ranks of a group."""
        ranks, rank = line
        place = dict(ranks=ranks, rank=rank, root=root)
        self[collective] += times * predicted_bytes(collective, n, element_bytes=self.size, **place)


def _passes(sent, config, layers, N, tensor, sequence) -> None:
    """What one micro-batch of N tokens, going forward and backward through these layers, sends to the tensor group."""
    first, last = layers.start == 0, layers.stop == config.n_layers
    # Each way two sums a layer; one of the embedding going forward, one of the logits' input going backward.
    sums = 4 * len(layers) + first + last
    for collective in ("all_gather", "reduce_scatter") if sequence else ("all_reduce",):
        sent.add(collective, N * config.width, tensor, times=sums)
    if last:  # the largest logits; the sums of exponentials with the targets' logits
        sent.add("all_reduce", N, tensor)
        sent.add("all_reduce", 2 * N, tensor)


def _replicas(sent, zero, blocks, rest, data, micros, gathers_of_rest) -> None:
    """What the gradients, and with ZeRO the parameters, send to the replicas: of each layer, and of the rest."""
    if zero == 0:
        sent.add("all_reduce", sum(blocks) + rest, data)
        return
    reduces = 1 if zero == 1 else micros
    for n in [*blocks, rest]:
        sent.add("reduce_scatter", n, data, times=reduces)
    for n in blocks:
        sent.add("all_gather", n, data, times=1 if zero < 3 else 2 * micros)
    sent.add("all_gather", rest, data, times=1 if zero < 3 else gathers_of_rest)


def _norm(config) -> int:
    return config.width * (2 if config.norm == "layernorm" else 1)


def _whole_of_layer(config) -> int:
    """Parameters of a layer that every tensor-parallel rank holds in full: two norms, and two biases added once."""
    return 2 * _norm(config) + 2 * config.width * config.bias


def _whole_of_ends(config, layers) -> int:
    """The same of what is in no layer: positions, if these layers are the first, and a norm, if they are the last."""
    learned = config.positions == "learned"
    positions = config.context * config.width * (layers.start == 0 and learned)
    return positions + _norm(config) * (layers.stop == config.n_layers)


def _parameters(config, stages, tensor) -> tuple[list[int], int]:
    """How many parameters a rank holds: of each layer, and of all that is in no layer."""
    D, F, (W, w) = config.width, config.hidden, tensor
    rows = D + 2 * config.kv_width + F * (2 if config.mlp == "swiglu" else 1)  # qkv, up (and gate)
    layer = (rows * (D + config.bias) + D * D + D * F) // W + _whole_of_layer(config)
    words = chunk_sizes(config.vocab_size, W)[w] * D
    rest = 0
    for layers in stages:
        first, last = layers.start == 0, layers.stop == config.n_layers
        tables = first + (last and not (config.tied and first))
        rest += _whole_of_ends(config, layers) + words * tables
    return [layer] * sum(map(len, stages)), rest


def _gathers(pipe, micros, schedule) -> int:
    """How often ZeRO's stage 3 gathers, in a step, what is in no layer: it stays from a forward to the next backward pass.

    The last stage's backward passes need it. The first one's do not (the gradient of an embedding needs no embedding),
    so there it is gathered by a forward pass that finds it gone.
    """
    P, p = pipe
    if p == P - 1:
        return micros
    kinds = [q.kind for q in passes_of(schedule, p, P, micros)]
    return sum(
        now == "F" and before == "B" for before, now in zip(["B", *kinds], kinds, strict=False)
    )
