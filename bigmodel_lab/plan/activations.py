"""Bytes of activations kept for the backward pass, after Korthikanti et al. (2022), arXiv:2205.05198, section 4.

For GPT-2's form in 16 bits, s positions, b sequences, h width, a heads, one layer:

    s b h (34 + 5 a s / h)                                one device
    s b h (10 + 24/t + 5 a s / (h t))                     tensor parallel over t
    s b h (34 + 5 a s / h) / t                            and sequence parallel
    34 s b h / t                                          and selective recomputation (or fused attention)
    2 s b h                                               full recomputation: only the layer's input

The 34 are: norms' inputs 4, attention 11, feed-forward 19. We add them up from the matrices, so that grouped heads, gated
blocks and another hidden width count as what they are; without dropout its masks and outputs go. Told in chapter 16.
"""

from bigmodel_lab.errors import require_choice
from bigmodel_lab.plan.architecture import Architecture, require_architecture
from bigmodel_lab.units import Q, Quantity, whole

__all__ = ["KEEP", "layer_activations", "model_activations"]

KEEP = ("none", "selective", "full")  # recompute nothing, attention's core, the whole layer


def layer_activations(
    arch: Architecture,
    batch: int = 1,
    sequence: int | None = None,
    *,
    tensor: int = 1,
    sequence_parallel: bool = False,
    recompute: str = "none",
    dropout: bool = True,
    itemsize: int = 2,
) -> Quantity:
    """Return the bytes that one layer keeps on one of `tensor` devices for one micro-batch of `batch` sequences.

    Experts: the dense block's size is replaced by that of the experts that work for a token, evenly loaded.
    """
    require_architecture(arch)
    b, t = whole("batch", batch, low=1), whole("tensor", tensor, low=1)
    i = whole("itemsize", itemsize, low=1)
    s = whole("sequence", arch.context if sequence is None else sequence, "token", 1)
    require_choice("recompute", recompute, KEEP)
    if arch.n_heads % t:
        raise ValueError(
            f"tensor={t} must divide n_heads={arch.n_heads}: each device takes whole heads."
        )
    D, H = arch.width, arch.n_heads
    mask = 1 if dropout else 0  # a dropout mask is one byte an element
    split_all = t if sequence_parallel else 1
    if recompute == "full":
        return Q(i * s * b * D / split_all, "byte")
    # norms' inputs; inputs and dropout masks of the two blocks
    whole_rows = arch.norms_per_layer * i * D + 2 * (i + mask) * D
    hidden = arch.hidden
    if (e := arch.experts) and arch.expert_layers:
        hidden = e.per_token * e.hidden + e.shared * (e.shared_hidden or e.hidden)
    queries, values = H * arch.key_width, H * arch.value_width
    keys_values = arch.kv_heads * (arch.key_width + arch.value_width)
    # q, k, v, the input of the output projection; then the tensors around the activation function
    copies = max(1.0, t / arch.kv_heads)  # a head of keys and values is not divided
    sharded = i * (queries + copies * keys_values + values)
    sharded += i * (3 if arch.gated else 2) * hidden
    scores = H * s * ((2 * i + 1) if dropout else i)  # softmax's output; mask and dropped scores
    core = 0 if recompute == "selective" else scores
    return Q(s * b * (whole_rows / split_all + (sharded + core) / t), "byte")


def model_activations(
    arch: Architecture,
    batch: int = 1,
    sequence: int | None = None,
    *,
    pipeline: int = 1,
    micro_batches: int | None = None,
    chunks: int = 1,
    **layer,
) -> Quantity:
    """Return the bytes of activations on the first (fullest) pipeline stage: layers, embedding mask and logits.

    pipeline : stages p. Under 1F1B the first stage holds p micro-batches, so that it keeps as many layers' activations as a
        device without pipeline does; `chunks` > 1 (interleaved) holds p + (p-1)/chunks
    micro_batches : m of a step; no stage ever holds more of them. None: more than are in flight
    layer : what `layer_activations` takes. Without pipeline the fp32 logits and the head's input are added.

    Counted is what the backward pass needs, for layers that are evenly shared; workspace, fragments and what a stage has
    passed on are not. Llama 3 405B's published layout (arXiv:2407.21783, section 3.3.2: first and last stage a layer less,
    tensors freed early) comes to 75 GB with its sharded float32 gradients on 16,384 devices, m = 16, and to 83 on 8,192, m =
    32: more than the sheet's 80 GB, and less than the 85.5 that the driver shows.
    """
    L = require_architecture(arch).n_layers
    p, v = whole("pipeline", pipeline, low=1, high=L), whole("chunks", chunks, low=1)
    held = p + (p - 1) / v if v > 1 else p
    if micro_batches is not None:
        held = min(held, whole("micro_batches", micro_batches, low=1))
    if v > 1 and p == 1:
        raise ValueError(
            f"chunks={v} needs a pipeline: with pipeline=1 there is nothing to interleave."
        )
    per_layer = layer_activations(arch, batch, sequence, **layer)
    total = per_layer * (-(-L // p) * held)
    s, t = arch.context if sequence is None else sequence, layer.get("tensor", 1)
    i = layer.get("itemsize", 2)
    split = t if layer.get("sequence_parallel") else 1
    if layer.get("dropout", True):  # the embedding's mask
        total += Q(s * batch * arch.width * min(p, held) / split, "byte")
    if p == 1 and arch.head != "none":
        logits = 4 * arch.padded_vocab / t  # float32, each device its part of the vocabulary
        total += Q(s * batch * (2 * i * arch.width / split + logits), "byte")
    return total
