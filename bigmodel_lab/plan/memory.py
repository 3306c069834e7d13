"""Memory of training, per device: model state under ZeRO 0-3, activations, and what fits.

Model state, P parameters on N data-parallel replicas, mixed precision with Adam (2 + 2 + 12 bytes a parameter):

    stage 0: 16P    1: 4P + 12P/N    2: 2P + 14P/N    3: 16P/N      (stage 1 is the paper's P_os, 2 P_os+g, 3 P_os+g+p)

Source: Rajbhandari et al. (2020), arXiv:1910.02054, section 3 and figure 1. Told in chapter 16.
"""

from dataclasses import dataclass

from bigmodel_lab.errors import require_choice
from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = ["STATES", "ModelState", "StateBytes", "model_state"]


@dataclass(frozen=True)
class StateBytes:
    """Bytes that training keeps for one parameter."""

    weights: int
    gradients: int
    optimiser: int  # moments, and the fp32 master copy where there is one
    source: str

    @property
    def total(self) -> int:
        """Bytes a parameter, unsharded."""
        return self.weights + self.gradients + self.optimiser


STATES = {
    "mixed-adam": StateBytes(2, 2, 12, "arXiv:1910.02054, section 3.1: K = 12"),
    "mixed-adam-fp32-gradients": StateBytes(2, 4, 12, "Megatron-LM's fp32 gradient accumulation"),
    "float32-adam": StateBytes(4, 4, 8, "weights, gradients, two moments"),
    "float32-momentum": StateBytes(4, 4, 4, "weights, gradients, one moment"),
    "float32-sgd": StateBytes(4, 4, 0, "weights and gradients"),
    "mixed-adam-8bit": StateBytes(2, 2, 6, "master copy 4, two moments of 1: arXiv:2110.02861"),
    "inference-16bit": StateBytes(2, 0, 0, "weights only"),
}


@dataclass(frozen=True)
class ModelState:
    """Bytes on one device."""

    weights: Quantity
    gradients: Quantity
    optimiser: Quantity

    @property
    def total(self) -> Quantity:
        """All model state on one device."""
        return self.weights + self.gradients + self.optimiser


def model_state(
    parameters, zero: int = 0, replicas: int = 1, *, shards: int = 1, state: str = "mixed-adam"
) -> ModelState:
    """Return the model state's bytes on one device.

    parameters : P of the whole model, all experts included
    zero : stage 0-3; stage 1 shards the optimiser's state over the replicas, 2 the gradients too, 3 the weights too
    replicas : N, data-parallel ranks
    shards : tensor x pipeline ranks that already divide the model (evenly, as a first estimate)
    state : a key of `STATES`
    """
    P, N = number("parameters", parameters, "parameter"), whole("replicas", replicas, low=1)
    P /= whole("shards", shards, low=1)
    stage = whole("zero", zero, low=0, high=3)
    b = STATES[require_choice("state", state, STATES)]
    return ModelState(
        weights=Q(b.weights * P / (N if stage >= 3 else 1), "byte"),
        gradients=Q(b.gradients * P / (N if stage >= 2 else 1), "byte"),
        optimiser=Q(b.optimiser * P / (N if stage >= 1 else 1), "byte"),
    )
