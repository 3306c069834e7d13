"""Optimisers with the interface of torch: AdamW over our numba kernel or torch's, and SGD with momentum.

    SGD:   u_t = momentum u_{t-1} + g + weight_decay p,    p_t = p_{t-1} - lr u_t
    AdamW: `bigmodel_lab.ops.adamw` has the equations

Source: for momentum Polyak (1964), USSR Computational Mathematics 4(5):1-17, as Sutskever et al. (2013), ICML, write it
with lr outside; for AdamW Loshchilov and Hutter (2019), arXiv:1711.05101; for clipping Pascanu et al. (2013),
arXiv:1211.5063, algorithm 1. Derived in chapter 6.
"""

import math
from collections.abc import Iterable

import torch
from torch.optim.adamw import adamw as torch_adamw

from bigmodel_lab.errors import require_choice, require_in_range
from bigmodel_lab.ops.adamw import adamw, require_adamw

__all__ = ["SGD", "AdamW", "clip_gradients", "decay_groups"]


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay.

    Parameters
    ----------
    params : parameters, or groups of them as dicts, such as from `decay_groups`
    lr : float             learning rate, >= 0, in units of the parameters
    betas : (float, float) 0 <= b < 1, of the running means of the gradient and of its square
    eps : float            >= 0, in units of the gradient
    weight_decay : float   >= 0; a parameter shrinks by the share lr * weight_decay a step
    ops : "numba"          our kernel on the parameters' own memory: CPU, contiguous, float32 or float64
          "torch"          torch's fused kernel: any device and dtype

    The state has torch's names: a state dict of `torch.optim.AdamW` can be loaded here, and the other way round. A state
    dict does not say which kernels made it, and after loading one the optimiser keeps its own.
    """

    def __init__(
        self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, ops: str = "numba"
    ):
        require_choice("ops", ops, ("numba", "torch"))
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(params, defaults)
        self.defaults["ops"] = ops  # what a pickled or copied optimiser keeps, beside its state

    def add_param_group(self, param_group) -> None:
        """Add a group of parameters, its settings checked; those it lacks are the optimiser's."""
        settings = {k: param_group.get(k, self.defaults[k]) for k in self.defaults if k != "ops"}
        require_adamw(**settings)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure=None):
        """Take one step along the gradients; parameters that have none stay as they are.

        `closure`, if given, is called first, with gradients on; what it returns is returned.
        """
        value = _call(closure)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                self._start(p)
            (self._with_numba if self.defaults["ops"] == "numba" else self._with_torch)(
                params, group
            )
        return value

    def _start(self, p):
        if p.grad.is_sparse:
            raise TypeError("AdamW needs dense gradients: build the embedding with sparse=False.")
        if self.defaults["ops"] == "numba" and p.device.type != "cpu":
            raise ValueError(
                f'AdamW with ops="numba" changes parameters on the CPU, got one on {p.device}: use ops="torch".'
            )
        if self.defaults["ops"] == "numba" and p.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f'AdamW with ops="numba" takes float32 and float64 parameters, got {p.dtype}: use ops="torch".'
            )
        if not self.state[p]:
            self.state[p].update(
                step=torch.tensor(0.0),  # float32, as torch keeps it: exact up to 16 million steps
                exp_avg=torch.zeros_like(p),
                exp_avg_sq=torch.zeros_like(p),
            )

    def _with_numba(self, params, group):
        settings = {k: group[k] for k in ("lr", "betas", "eps", "weight_decay")}
        for p in params:
            state = self.state[p]
            state["step"] += 1
            m, v = state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()
            adamw(p.detach().numpy(), p.grad.numpy(), m, v, int(state["step"]), **settings)
        torch.autograd.graph.increment_version(params)  # autograd did not see the kernel write

    def _with_torch(self, params, group):
        states = [self.state[p] for p in params]
        b1, b2 = group["betas"]
        torch_adamw(
            params,
            [p.grad for p in params],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=b1,
            beta2=b2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
        )


class SGD(torch.optim.Optimizer):
    """Gradient descent with momentum; the plain one with momentum=0.

    Parameters
    ----------
    params : parameters, or groups of them as dicts
    lr : float             learning rate, >= 0
    momentum : float       0 <= momentum < 1; the step averages over the last 1/(1 - momentum) gradients, about
    weight_decay : float   >= 0; added to the gradient as weight_decay * p, so momentum averages it too

    The state has torch's names. Gives the same numbers as `torch.optim.SGD`.
    """

    def __init__(self, params, lr=1e-2, momentum=0.0, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    def add_param_group(self, param_group) -> None:
        """Add a group of parameters, its settings checked; those it lacks are the optimiser's."""
        settings = {k: param_group.get(k, self.defaults[k]) for k in self.defaults}
        for name in ("lr", "weight_decay"):
            require_in_range(name, settings[name], 0)
        if not 0 <= settings["momentum"] < 1:
            raise ValueError(
                f"momentum must be at least 0 and below 1, got {settings['momentum']}."
            )
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure=None):
        """Take one step; as `AdamW.step`."""
        value = _call(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                u = p.grad.add(p, alpha=group["weight_decay"]) if group["weight_decay"] else p.grad
                if group["momentum"]:
                    if not self.state[p]:
                        self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                    u = self.state[p]["momentum_buffer"].mul_(group["momentum"]).add_(u)
                p.add_(u, alpha=-group["lr"])
        return value


def decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Return the model's trainable parameters as two groups: those that weight decay shrinks, and those it does not.

    Matrices and larger (linear, embedding, convolution) decay. Vectors and scalars (biases, gains of norms) do not: a
    gain pulled to 0 would undo the norm. A group that would be empty is left out.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [g for g in groups if g["params"]]


def clip_gradients(params: Iterable[torch.Tensor], max_norm: float) -> float:
    """Scale all gradients by one factor so that their norm, taken over all together, is at most `max_norm`.

    Returns the norm before, in units of the gradient; 0.0 if there are no gradients. The direction stays. max_norm =
    inf only measures. A norm that is NaN or infinite is returned, and the gradients are left as they are.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be above 0, got {max_norm}: math.inf turns clipping off.")
    grads = [p.grad for p in params if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads).item()
    if max_norm < norm < math.inf:
        for g in grads:
            g.mul_(max_norm / (norm + 1e-6))  # torch has the same 1e-6, so the two agree
    return norm


def _call(closure):
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
