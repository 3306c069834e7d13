"""The state of every random generator that a training step draws from, for a checkpoint to hold.

Those are torch's own (dropout), and the generators that a module keeps as an attribute, NumPy's or torch's. NumPy's
global generator and Python's `random` are not among them: nothing in this library draws from those.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

__all__ = ["private_randomness", "random_state", "set_random_state"]


def random_state(model: torch.nn.Module) -> dict:
    """Return the state of torch's generators, on the CPU and on the model's GPUs, and of those in `model`."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": {str(d): torch.cuda.get_rng_state(d) for d in _gpus(model)},
        "modules": {
            name: g.get_state() if isinstance(g, torch.Generator) else g.bit_generator.state
            for name, g in _generators(model)
        },
    }


def set_random_state(model: torch.nn.Module, state: Mapping) -> None:
    """Put every generator into the state that `random_state` returned, for a model of the same architecture."""
    torch.set_rng_state(state["torch"])
    for d, s in state["cuda"].items():
        torch.cuda.set_rng_state(s, int(d))
    here = dict(_generators(model))
    if here.keys() != state["modules"].keys():
        odd = ", ".join(sorted(here.keys() ^ state["modules"].keys()))
        raise ValueError(
            f"The model's generators are not those of the checkpoint: they differ in {odd}."
        )
    for name, g in here.items():
        if isinstance(g, torch.Generator):
            g.set_state(state["modules"][name])
        else:
            g.bit_generator.state = state["modules"][name]


def private_randomness(model: torch.nn.Module):
    """Return a context in which torch's generators can be seeded; afterwards they are as they were before."""
    return torch.random.fork_rng(devices=_gpus(model))


def _gpus(model) -> list[int]:
    return sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})


def _generators(model) -> Iterator[tuple[str, np.random.Generator | torch.Generator]]:
    for module_name, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, np.random.Generator | torch.Generator):
                yield f"{module_name}.{name}".lstrip("."), value
