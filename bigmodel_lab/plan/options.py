"""What the commands of `bml plan` share: which model and of which shape, which device, what price."""

from dataclasses import dataclass, fields, replace
from functools import partial

from bigmodel_lab.plan.architecture import Architecture, Experts
from bigmodel_lab.plan.models import MODELS, find_model
from bigmodel_lab.plan.tables import device, price, rows
from bigmodel_lab.shell import Command, option
from bigmodel_lab.units import Q

__all__ = ["DEVICE", "DTYPE", "DTYPES", "ON", "SEQUENCE", "ModelCommand", "device_price", "training_sequence"]  # fmt: skip

ON = "day to read the tables as of, YYYY-MM-DD (default: today)"
SEQUENCE = "tokens of a sequence (default: the context, at most 8192)"
DEVICE = f"one of {', '.join(rows('devices'))}"
DTYPE, DTYPES = "number format of the products", ("bf16", "fp16", "fp8", "fp32")
_of_model = partial(option, group="the model and its shape")
_size = partial(_of_model, None, low=1)


def training_sequence(arch: Architecture, given: int | None) -> int:
    """Return `given`, or the context up to 8192: a longer context is trained for a short time only, at the end."""
    return min(arch.context, 8192) if given is None else given


def device_price(usd: float | None, name: str, on: str | None):
    """Return USD / (device hour) as given, or the middle of the table's row; ValueError, if there is none."""
    device(name, on)  # an unknown device is no matter of its price
    if usd is None and name not in rows("prices"):
        known = ", ".join(sorted(rows("prices")))
        raise ValueError(
            f"--price must be given for {name}, in USD a device-hour: the table has prices of {known} alone."
        )
    return price(name, on).middle if usd is None else Q(usd, "USD / device / hour")


@dataclass(frozen=True)
class ModelCommand(Command):
    """A command about an architecture: a known model, and changes to it."""

    model: str = _of_model("gpt2", f"start from this model: {', '.join(MODELS)}")
    layers: int | None = _size("transformer layers")
    width: int | None = _size("channels of the residual stream")
    heads: int | None = _size("heads of queries")
    kv_heads: int | None = _size("heads of keys and values (1: MQA; fewer than heads: GQA)")
    head_width: int | None = _size("channels of a head, if not width / heads")
    hidden: int | None = _size("channels of the feed-forward block")
    vocab: int | None = _size("tokens of the vocabulary")
    pad_vocab_to: int | None = _size("round the vocabulary up to a multiple of this")
    context: int | None = _size("positions of the context")
    gated: bool | None = _of_model(None, "three matrices in the feed-forward block (SwiGLU)")
    biases: str | None = _of_model(
        None, "linear layers with a bias", choices=("all", "qkv", "mlp", "none")
    )
    norm: str | None = _of_model(
        None, "kind of norm", choices=("layernorm", "layernorm_no_bias", "rmsnorm", "none")
    )
    norms_per_layer: int | None = _of_model(
        None, "1 where attention and feed-forward run in parallel, 4 in Gemma 2", low=0
    )
    embedding_norm: bool | None = _of_model(None, "a norm after the embedding")
    qk_norm: str | None = _of_model(
        None, "norm of queries and keys", choices=("none", "head", "all")
    )
    positions_by: str | None = _of_model(
        None, "how positions enter", choices=("learned", "rotary", "alibi", "sinusoidal", "none")
    )
    output_layer: str | None = _of_model(
        None, "output layer", choices=("tied", "untied", "mlm", "none")
    )
    head_bias: bool | None = _of_model(None, "a bias in a tied or untied output layer")
    experts: int | None = _size("routed experts in a layer")
    experts_per_token: int | None = _size("of them, how many work for a token")
    expert_hidden: int | None = _size("channels of one expert")
    shared_experts: int | None = _of_model(None, "experts that work for every token", low=0)
    dense_layers: int | None = _of_model(None, "first layers without experts", low=0)
    expert_every: int | None = _size("of the layers after those, one in so many has experts")

    def architecture(self) -> Architecture:
        """Return the model with the given changes. Raises ValueError if a change leaves another size open."""
        base = find_model(self.model)
        names = dict(
            n_layers="layers", n_heads="heads", n_kv_heads="kv_heads", positions="positions_by", head="output_layer"
        )  # fmt: skip
        own = {f.name for f in fields(ModelCommand)}
        names |= {f.name: f.name for f in fields(Architecture) if f.name in own - {"experts"}}
        changes = {k: x for k, n in names.items() if (x := getattr(self, n)) is not None}
        if "width" in changes and "hidden" not in changes:
            if base.hidden != 4 * base.width:
                raise ValueError(
                    f"--hidden must be given with --width: {base.name} has {base.hidden}, no fixed multiple of its width."
                )
            changes["hidden"] = 4 * changes["width"]
        if "n_heads" in changes and base.n_kv_heads and "n_kv_heads" not in changes:
            raise ValueError(
                f"--kv-heads must be given with --heads: {base.name} groups {base.n_heads} heads by {base.n_kv_heads}."
            )
        given = dict(
            count=self.experts, per_token=self.experts_per_token, hidden=self.expert_hidden,
            shared=self.shared_experts, dense_layers=self.dense_layers, every=self.expert_every,
        )  # fmt: skip
        given = {k: x for k, x in given.items() if x is not None}
        if given:
            if base.experts:
                changes["experts"] = replace(base.experts, **given)
            elif not {"count", "per_token", "hidden"} <= given.keys():
                raise ValueError(
                    f"--experts, --experts-per-token and --expert-hidden go together: {base.name} has no experts."
                )
            else:
                changes["experts"] = Experts(**given)
        if changes:
            changes["name"] = f"{base.name}, changed"
        return base.but(**changes)
