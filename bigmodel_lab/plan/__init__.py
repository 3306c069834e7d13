"""Planning: what a model, a run and a service take, in parameters, FLOP, bytes, days, kilowatt hours and dollars.

Pure functions over frozen descriptions. Arguments are quantities of `bigmodel_lab.units`, or plain numbers in the unit
that the docstring names; answers are quantities. The same questions can be asked from a shell: `bml plan --help`.
"""

from bigmodel_lab.plan.activations import layer_activations, model_activations
from bigmodel_lab.plan.architecture import MLA, Architecture, Experts
from bigmodel_lab.plan.capacity import ServingFleet, plan_serving
from bigmodel_lab.plan.failures import daly_interval, fleet_mtbf, goodput, young_interval
from bigmodel_lab.plan.fit import Fit, fit_chinchilla
from bigmodel_lab.plan.flops import (
    RECOMPUTE,
    ForwardFlops,
    forward_flops,
    hfu,
    mfu,
    palm_flops_per_token,
    six_nd,
    training_flops,
    utilisation,
    whole_run_utilisation,
)
from bigmodel_lab.plan.kv import kv_cache, kv_per_token
from bigmodel_lab.plan.layout import Estimate, Fleet, TrainingLayout, estimate
from bigmodel_lab.plan.measured import Measured, measure, points
from bigmodel_lab.plan.memory import STATES, ModelState, StateBytes, model_state
from bigmodel_lab.plan.models import MODELS, find_model
from bigmodel_lab.plan.parameters import ParameterCount, count_parameters
from bigmodel_lab.plan.planner import Choice, plan_training
from bigmodel_lab.plan.queues import Simulated, Wait, servers_for, simulate_serving, wait
from bigmodel_lab.plan.roofline import attainable, matmul_intensity, peak_from_clock, ridge
from bigmodel_lab.plan.run import Bill, bill, energy, training_time
from bigmodel_lab.plan.scaling import (
    EXPONENTS,
    LAWS,
    ChinchillaLaw,
    KaplanLaw,
    Optimum,
    find_law,
    scaled_optimum,
)
from bigmodel_lab.plan.serving import (
    Replica,
    Service,
    Workload,
    decode_step,
    largest_batch,
    prefill,
    serve,
)
from bigmodel_lab.plan.tables import (
    Device,
    Grid,
    Price,
    Reliability,
    StaleRow,
    device,
    fits_on,
    grid,
    price,
    reliability,
)
from bigmodel_lab.plan.traffic import (
    Bubble,
    collective_bytes,
    collective_time,
    data_parallel_bytes,
    expert_bytes,
    pipeline_bubble,
    pipeline_bytes,
    tensor_bytes,
)

__all__ = [
    "EXPONENTS",
    "LAWS",
    "MLA",
    "MODELS",
    "RECOMPUTE",
    "STATES",
    "Architecture",
    "Bill",
    "Bubble",
    "ChinchillaLaw",
    "Choice",
    "Device",
    "Estimate",
    "Experts",
    "Fit",
    "Fleet",
    "ForwardFlops",
    "Grid",
    "KaplanLaw",
    "Measured",
    "ModelState",
    "Optimum",
    "ParameterCount",
    "Price",
    "Reliability",
    "Replica",
    "Service",
    "ServingFleet",
    "Simulated",
    "StaleRow",
    "StateBytes",
    "TrainingLayout",
    "Wait",
    "Workload",
    "attainable",
    "bill",
    "collective_bytes",
    "collective_time",
    "count_parameters",
    "daly_interval",
    "data_parallel_bytes",
    "decode_step",
    "device",
    "energy",
    "estimate",
    "expert_bytes",
    "find_law",
    "find_model",
    "fit_chinchilla",
    "fits_on",
    "fleet_mtbf",
    "forward_flops",
    "goodput",
    "grid",
    "hfu",
    "kv_cache",
    "kv_per_token",
    "largest_batch",
    "layer_activations",
    "matmul_intensity",
    "measure",
    "mfu",
    "model_activations",
    "model_state",
    "palm_flops_per_token",
    "peak_from_clock",
    "pipeline_bubble",
    "pipeline_bytes",
    "plan_serving",
    "plan_training",
    "points",
    "prefill",
    "price",
    "reliability",
    "ridge",
    "scaled_optimum",
    "serve",
    "servers_for",
    "simulate_serving",
    "six_nd",
    "tensor_bytes",
    "training_flops",
    "training_time",
    "utilisation",
    "wait",
    "whole_run_utilisation",
    "young_interval",
]
