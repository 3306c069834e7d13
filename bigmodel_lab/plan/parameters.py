"""Exact parameter counts of an architecture, part by part.

For GPT-2's form (biases, learned positions, tied head, F = 4D) the parts add up to

    N = V D + T D + L (12 D^2 + 13 D) + 2 D

Source: the matrices themselves; held to models instantiated on torch's meta device in tests/plan/test_parameters.py and
to published counts. Told in chapter 16.
"""

from dataclasses import dataclass

from bigmodel_lab.plan.architecture import Architecture, require_architecture

__all__ = ["ParameterCount", "count_parameters"]


@dataclass(frozen=True)
class ParameterCount:
    """Trained numbers by part, over all layers. Each is a whole number of parameters."""

    token_embedding: int
    position_embedding: int  # and segments
    attention: int
    feed_forward: int  # dense blocks, experts and shared experts
    router: int  # which expert a token goes to, and the gain of shared experts
    norms: int
    head: int  # 0 where it is tied
    pooler: int
    idle: int  # of feed_forward: experts that do not work for a given token

    @property
    def total(self) -> int:
        """All parameters, each counted once."""
        return sum(getattr(self, f) for f in self.__dataclass_fields__ if f != "idle")

    @property
    def active(self) -> int:
        """Parameters that work for one token; equal to the total without experts."""
        return self.total - self.idle

    @property
    def non_embedding(self) -> int:
        """Total without token, position and segment embeddings and without an untied head (Kaplan's N)."""
        return self.total - self.token_embedding - self.position_embedding - self.head


def norm_size(arch: Architecture, width: int) -> int:
    """Trained numbers of one norm over `width` channels."""
    return {"layernorm": 2, "layernorm_no_bias": 1, "rmsnorm": 1, "none": 0}[arch.norm] * width


def block_size(arch: Architecture, hidden: int) -> int:
    """Parameters of one feed-forward block (or one expert) of `hidden` channels."""
    D, ups = arch.width, 2 if arch.gated else 1
    biases = ups * hidden + D if arch.biases in ("all", "mlp") else 0
    return (ups + 1) * D * hidden + biases


def attention_size(arch: Architecture) -> int:
    """Parameters of one layer's attention: projections, their biases, and the norms of queries and keys."""
    D, H, G, K = arch.width, arch.n_heads, arch.kv_heads, arch.key_width
    if m := arch.mla:
        queries = D * H * K if m.q_rank is None else D * m.q_rank + m.q_rank + m.q_rank * H * K
        keys = D * (m.kv_rank + m.rope) + m.kv_rank + m.kv_rank * H * (m.nope + m.value)
        return queries + keys + H * m.value * D  # each latent has an rmsnorm of its own
    size = D * (H + 2 * G) * K + H * K * D
    size += (H + 2 * G) * K if arch.biases in ("all", "qkv") else 0
    size += D if arch.biases == "all" else 0
    return size + {"none": 0, "head": 2 * K, "all": (H + G) * K}[arch.qk_norm]


def count_parameters(arch: Architecture) -> ParameterCount:
    """Return the exact number of trained parameters of `arch`, part by part."""
    require_architecture(arch)
    D, L, V, e = arch.width, arch.n_layers, arch.padded_vocab, arch.experts
    feed_forward = (L - arch.expert_layers) * block_size(arch, arch.hidden)
    router = idle = 0
    if e:
        expert, shared = block_size(arch, e.hidden), block_size(arch, e.shared_hidden or e.hidden)
        feed_forward += arch.expert_layers * (e.count * expert + e.shared * shared)
        router = arch.expert_layers * D * (e.count + int(e.shared_gate))
        idle = arch.expert_layers * (e.count - e.per_token) * expert
    norms = L * arch.norms_per_layer + int(arch.final_norm) + int(arch.embedding_norm)
    learned = arch.context + arch.position_offset if arch.positions == "learned" else 0
    head = V * D if arch.head == "untied" else 0
    head += V if arch.head_bias and arch.head in ("tied", "untied") else 0
    head += D * D + D + norm_size(arch, D) + V if arch.head == "mlm" else 0
    return ParameterCount(
        token_embedding=V * D,
        position_embedding=(learned + arch.token_types) * D,
        attention=L * attention_size(arch),
        feed_forward=feed_forward,
        router=router,
        norms=norms * norm_size(arch, D),
        head=head,
        pooler=D * D + D if arch.pooler else 0,
        idle=idle,
    )
