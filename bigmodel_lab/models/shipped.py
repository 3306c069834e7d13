"""The pretrained GPT that ships with the course, and how such a model is kept in a folder.

    model, tokenizer = models.pretrained()                  # a GPT in evaluation mode, and the BPE that it reads
    record = RunRecord.load(models.PRETRAINED / "record.json")

A folder holds

    model.safetensors    the weights in float16, under the names of `GPT`, and in its header "config": `GPTConfig` as JSON
    tokenizer.json       what `BPE.save` writes
    manifest.json        size in bytes and SHA-256 of both

and the shipped one, made by `python -m bigmodel_lab.train.pretrain`, also record.json and a README. float16 keeps 11 bits
of each weight, so a weight changes by at most 1 part in 2048; what that costs is in the record.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from bigmodel_lab.data.store import DataError, require_hash, sha256
from bigmodel_lab.files import write_atomically
from bigmodel_lab.models.config import GPTConfig
from bigmodel_lab.models.gpt import GPT
from bigmodel_lab.text import BPE

__all__ = ["PRETRAINED", "pretrained", "save_pretrained"]

PRETRAINED = Path(__file__).parent / "assets"
WEIGHTS, TOKENIZER, MANIFEST = "model.safetensors", "tokenizer.json", "manifest.json"


def pretrained(
    folder: str | os.PathLike = PRETRAINED,
    *,
    ops: str = "torch",
    dtype: torch.dtype = torch.float32,
) -> tuple[GPT, BPE]:
    """Return the model and the tokenizer in `folder`: the shipped ones, or what `save_pretrained` wrote.

    Parameters
    ----------
    folder : where they are
    ops : "torch" or "numba"   which kernels compute the model
    dtype : of the parameters  float32 or float64 hold the stored float16 exactly

    The model is in evaluation mode; `model.train()` turns its dropout on, for fine-tuning. Nothing is downloaded.
    Raises `data.DataError` if a file is missing or is not what its folder's manifest says.
    """
    folder = Path(folder)
    content = {name: _read(folder, name, entry) for name, entry in _manifest(folder).items()}
    with safetensors.safe_open(folder / WEIGHTS, "pt") as f:
        config = GPTConfig(**json.loads(f.metadata()["config"]))
    with torch.device("meta"):
        model = GPT(config, ops)
    weights = safetensors.torch.load(content[WEIGHTS])
    # copies: what `load` returns may start at any byte of the file
    model.load_state_dict({n: t.to(dtype).clone() for n, t in weights.items()}, assign=True)
    return model.requires_grad_().eval(), BPE.load(folder / TOKENIZER)


def save_pretrained(folder: str | os.PathLike, model: GPT, tokenizer: BPE) -> Path:
    """Write `model`, in float16, and `tokenizer` into `folder`, which is made if missing; return the folder.

    The same model and tokenizer give the same bytes. Raises ValueError if they do not have one vocabulary, or a weight is
    too large for float16, naming it.
    """
    if model.config.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            f"The model has vocab_size={model.config.vocab_size} and the tokenizer {tokenizer.vocab_size}: "
            "they do not belong together."
        )
    weights = {
        n: p.detach().to("cpu", torch.float16).contiguous() for n, p in model.named_parameters()
    }
    for name, w in weights.items():
        if not w.isfinite().all():
            raise ValueError(
                f"{name} has a weight that is NaN or above 65504, the largest float16."
            )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    header = {"config": json.dumps(asdict(model.config))}
    write_atomically(folder / WEIGHTS, safetensors.torch.save(weights, header))
    tokenizer.save(folder / TOKENIZER)
    listed = {}
    for name in (WEIGHTS, TOKENIZER):
        raw = (folder / name).read_bytes()
        listed[name] = {"bytes": len(raw), "sha256": sha256(raw)}
    write_atomically(folder / MANIFEST, (json.dumps(listed, indent=1) + "\n").encode())
    return folder


def _manifest(folder: Path) -> dict[str, dict]:
    try:
        listed = json.loads((folder / MANIFEST).read_bytes())
        return {n: {k: listed[n][k] for k in ("bytes", "sha256")} for n in (WEIGHTS, TOKENIZER)}
    except OSError as e:
        raise DataError(
            f"{folder / MANIFEST} cannot be read: {e.strerror}. {_mend(folder)}"
        ) from None
    except (ValueError, LookupError, TypeError) as e:
        raise DataError(
            f"{folder / MANIFEST} is damaged: {type(e).__name__}: {e}. {_mend(folder)}"
        ) from None


def _read(folder: Path, name: str, listed: dict) -> bytes:
    path = folder / name
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror}. {_mend(folder)}") from None
    require_hash(path, raw, listed["sha256"], listed["bytes"], _mend(folder))
    return raw


def _mend(folder: Path) -> str:
    if folder != PRETRAINED:
        return "Save it again with save_pretrained."
    clone = PRETRAINED.parents[2]
    if (clone / ".git").exists():
        return f"Restore it: `git -C {clone} checkout -- {PRETRAINED.relative_to(clone)}`."
    return "Reinstall the package: `pip install --force-reinstall --no-deps bigmodel-lab`."
