"""Nested dicts, lists and tuples with tensors in them, taken apart into JSON and a flat table of tensors, and back.

JSON has no tuples, no keys but strings, no NaN and no tensors. Each of those becomes {"$": what it is, ...}; everything
else stays as it is, so that a person can read the file. Nothing is pickled: loading runs no code from the file.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch

__all__ = ["pack", "unpack"]


def pack(tree) -> tuple[object, dict[str, torch.Tensor]]:
    """Return `tree` as what `json.dumps` takes, and its tensors and arrays by a name that says where they were.

    A tensor that occurs twice, such as a tied weight, is in the table once. The tensors are on the CPU, contiguous, and
    share no memory with one another; those that were so already are not copied.

    Raises TypeError, naming the place, for what is neither data of JSON nor a tuple, array or tensor.
    """
    packer = _Packer()
    return packer.pack(tree, ()), packer.tensors


class _Packer:
    def __init__(self):
        self.tensors: dict[str, torch.Tensor] = {}
        self._names: dict[tuple, str] = {}  # of a piece of memory, how it is seen -> its name
        self._memory: set[int] = set()  # storages that are in the table

    def pack(self, x, path: tuple):
        if x is None or isinstance(x, bool | str | int):
            return x
        if isinstance(x, float | np.floating) and math.isfinite(x):
            return float(x)
        if isinstance(x, float | np.floating):
            return {"$": "float", "value": str(float(x))}
        if isinstance(x, np.bool_ | np.integer):
            return x.item()
        if isinstance(x, torch.Tensor):
            return {"$": "tensor", "name": self._add(x.detach(), path)}
        if isinstance(x, np.ndarray):
            return {"$": "array", "name": self._add(torch.from_numpy(np.array(x)), path)}
        if isinstance(x, list | tuple):
            items = [self.pack(y, (*path, i)) for i, y in enumerate(x)]
            return items if isinstance(x, list) else {"$": "tuple", "items": items}
        if isinstance(x, Mapping):
            values = [self.pack(y, (*path, k)) for k, y in x.items()]
            if all(isinstance(k, str) for k in x) and "$" not in x:
                return dict(zip(x, values, strict=True))
            keys = [self.pack(k, path) for k in x]
            return {"$": "dict", "items": [list(item) for item in zip(keys, values, strict=True)]}
        raise TypeError(
            f"{'.'.join(map(str, path))} is a {type(x).__name__}, which a checkpoint cannot hold: "
            "it takes tensors, arrays, numbers, texts, None, and lists, tuples and dicts of them."
        )

    def _add(self, t: torch.Tensor, path: tuple) -> str:
        seen_as = (t.data_ptr(), t.dtype, t.shape, t.stride(), t.device)
        if t.numel() and seen_as in self._names:
            return self._names[seen_as]
        name = base = ".".join(map(str, path))
        while name in self.tensors:  # {"a": {"b": t}, "a.b": t} gives two of one name
            name = f"{base}~{len(self.tensors)}"
        plain, memory = t.cpu().contiguous(), t.untyped_storage()
        if memory.data_ptr() in self._memory or memory.nbytes() != t.numel() * t.element_size():
            plain = plain.clone()  # a part of a larger tensor, or another view of one in the table
        self._memory.add(memory.data_ptr())
        self._names[seen_as] = name
        self.tensors[name] = plain
        return name


def unpack(packed, tensors: Mapping[str, torch.Tensor]):
    """Return the tree that `pack` took apart. Raises KeyError for a tensor that is not in the table."""
    if isinstance(packed, list):
        return [unpack(y, tensors) for y in packed]
    if not isinstance(packed, dict):
        return packed
    match packed.get("$"):
        case None:
            return {k: unpack(y, tensors) for k, y in packed.items()}
        case "float":
            return float(packed["value"])
        case "tensor":
            return tensors[packed["name"]]
        case "array":
            return tensors[packed["name"]].numpy()
        case "tuple":
            return tuple(unpack(packed["items"], tensors))
        case "dict":
            return {unpack(k, tensors): unpack(y, tensors) for k, y in packed["items"]}
    raise ValueError(f"unknown kind {packed['$']!r}: written by a newer bigmodel-lab.")
