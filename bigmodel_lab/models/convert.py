"""Weights of Hugging Face `transformers` in the names and shapes of `GPT`.

Two models are read: GPT2LMHeadModel (Hugging Face's "gpt2" and its fine-tuned relatives) and LlamaForCausalLM. Nothing is
downloaded here: pass `model.state_dict()` or what safetensors loaded. What differs from our layout:

- GPT-2 keeps its matrices as (in, out), ours are (out, in);
- Llama keeps queries, keys and values apart, ours are one matrix with the rows in that order;
- a tied output layer is stored twice or not at all there, and not at all here.

Both pair channel i of a head with channel i + K/2 for rotary positions, as `ops.rope` does.
"""

from collections.abc import Mapping

import torch

from bigmodel_lab.models.config import GPTConfig
from bigmodel_lab.models.gpt import GPT


def from_transformers(state_dict: Mapping, config: GPTConfig, ops: str = "torch") -> GPT:
    """Return a GPT of form `config`, in evaluation mode, with the weights of a transformers state dict.

    The dtype is that of the weights. Raises ValueError if a weight is missing, left over or of another shape than
    `config` says, naming it.
    """
    weights = convert(state_dict, config)
    with torch.device("meta"):
        model = GPT(config, ops)
    for name, p in model.named_parameters():
        if weights[name].shape != p.shape:
            raise ValueError(
                f"{name} has shape {tuple(weights[name].shape)} in the state dict and {tuple(p.shape)} by the config: the "
                "sizes of the config are not those of this model."
            )
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_().eval()


def convert(state_dict: Mapping, config: GPTConfig) -> dict[str, torch.Tensor]:
    """Return copies of the tensors of `state_dict` under the names of `GPT(config)`.

    The map is linear, so gradients by name can be converted the same way. Raises ValueError for a form that neither
    model has, for missing names, and for names left over.
    """
    sources = _sources(config)
    needed = {name for names, _ in sources.values() for name in names}
    missing = sorted(needed - state_dict.keys())
    extra = sorted(n for n in state_dict.keys() - needed if not _ignored(n, config))
    if missing or extra:
        lists = (("lacks", missing), ("has the unexpected", extra))
        parts = " and ".join(f"{verb} {_some(names)}" for verb, names in lists if names)
        raise ValueError(f"The state dict {parts}: it is not of the form that the config names.")
    weights = {}
    for name, (theirs, transposed) in sources.items():
        w = torch.cat([state_dict[n].detach() for n in theirs])  # copies, also a single one
        weights[name] = w.T.contiguous() if transposed else w
    return weights


def _some(names):
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _ignored(name, config):
    """Tables that old versions stored beside the weights, and the second name of a tied matrix."""
    return name.endswith((".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")) or (
        config.tied and name == "lm_head.weight"
    )


def _sources(config):
    """Return {our name: (their names, is it transposed there)}; several names are joined along the rows."""
    c = config
    if (c.positions, c.norm, c.bias) == ("learned", "layernorm", True) and c.mlp != "swiglu":
        if c.n_kv_heads != c.n_heads:
            raise ValueError(f"GPT-2 has no grouped queries: n_kv_heads={c.n_kv_heads}.")
        sources = _gpt2(c.n_layers)
    elif (c.positions, c.norm, c.mlp) == ("rotary", "rmsnorm", "swiglu"):
        sources = _llama(c.n_layers, c.bias)
    else:
        raise ValueError(
            f'No model of transformers that is read here has positions="{c.positions}", norm="{c.norm}", mlp="{c.mlp}", '
            f"bias={c.bias}. GPTConfig.gpt2() and GPTConfig.llama() give the two forms that are."
        )
    if not c.tied:
        sources["head.weight"] = (("lm_head.weight",), False)
    return sources


def _gpt2(n_layers):
    t = "transformer"
    sources = {
        "tokens.weight": ((f"{t}.wte.weight",), False),
        "positions": ((f"{t}.wpe.weight",), False),
        "norm.weight": ((f"{t}.ln_f.weight",), False),
        "norm.bias": ((f"{t}.ln_f.bias",), False),
    }
    parts = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attention.qkv": "attn.c_attn",
        "attention.out": "attn.c_proj",
        "mlp.up": "mlp.c_fc",
        "mlp.down": "mlp.c_proj",
    }
    for l in range(n_layers):
        for ours, theirs in parts.items():
            matrix = not ours.startswith("norm")
            sources[f"blocks.{l}.{ours}.weight"] = ((f"{t}.h.{l}.{theirs}.weight",), matrix)
            sources[f"blocks.{l}.{ours}.bias"] = ((f"{t}.h.{l}.{theirs}.bias",), False)
    return sources


def _llama(n_layers, bias):
    sources = {
        "tokens.weight": (("model.embed_tokens.weight",), False),
        "norm.weight": (("model.norm.weight",), False),
    }
    parts = {
        "attention.qkv": [f"self_attn.{p}_proj" for p in "qkv"],
        "attention.out": ["self_attn.o_proj"],
        "mlp.gate": ["mlp.gate_proj"],
        "mlp.up": ["mlp.up_proj"],
        "mlp.down": ["mlp.down_proj"],
    }
    norms = {"norm1": ["input_layernorm"], "norm2": ["post_attention_layernorm"]}
    for l in range(n_layers):
        for ours, theirs in (parts | norms).items():
            for kind in ("weight", "bias") if bias and ours in parts else ("weight",):
                names = tuple(f"model.layers.{l}.{t}.{kind}" for t in theirs)
                sources[f"blocks.{l}.{ours}.{kind}"] = (names, False)
    return sources
