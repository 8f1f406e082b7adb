"""Optimizers for latent weights, learning rates per layer, and their schedules.

The optimizers are ordinary ``torch.optim.Optimizer``: parameter groups, closures, hooks,
``state_dict`` and torch's learning-rate schedulers work as they do there. Whatever a schedule is to
scale is the group's ``lr``; the rate that a factor multiplies is the group's ``initial_lr``, as in
``torch.optim.lr_scheduler``::

    optimizer = bnn.ShiftAdaMax(bnn.glorot_groups(model, lr=2**-10))
    bnn.clip_latent_after_step(optimizer, model)
    for step in range(total):
        bnn.scale_rates(optimizer, bnn.cosine(step, total))
        ...
        optimizer.step()  # clips the latent weights, too

All arithmetic is elementwise, so processes that see equal gradients (DistributedDataParallel)
end with equal bits.
"""

import math
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT
from torch.utils.hooks import RemovableHandle

from edgebnn.nn.functional import ap2, clip_latent_, sign_bit


def _evaluate(closure: Callable[[], float] | None) -> float | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _dense_grad(parameter: Tensor, optimizer: str) -> Tensor:
    grad = parameter.grad
    assert grad is not None
    if grad.is_sparse:
        raise RuntimeError(f"{optimizer} takes dense gradients only; build the layer sparse=False")
    return grad


class ShiftAdaMax(Optimizer):
    """Shift-based AdaMax: AdaMax whose correction and division are by powers of two.

    For the gradient ``g`` of step ``t`` (from 1)::

        m     = b1 * m + (1 - b1) * g
        v     = max(b2 * v, |g|)
        theta = theta - lr * AP2(1 / (1 - b1**t)) * m * AP2(1 / v)

    with ``AP2(x) = sign(x) * 2**round(log2|x|)``. These two reciprocals alone are replaced by
    powers of two, and both exactly: ``AP2(1 / v)`` is computed as ``1 / AP2(v)``, which is the
    same number. ``m``, ``v`` and ``lr`` are taken as they are. A step is thus ``m`` shifted
    where ``lr`` is a power of two (the default; :func:`halving` keeps it one). Where ``v`` is 0
    there is no step. A parameter without a gradient is passed over, and its ``t`` stands still.

    The default b2 lets ``v`` forget half a gradient in 710 steps. Where a run has a few thousand,
    0.99 is the better one (``docs/results.md``). The published Torch7 code stores ``AP2(v)`` for
    ``v``, so that b2 = 0.999 is rounded away and ``v`` never falls; this is the text's algorithm.

    Args:
        params: parameters or groups of them.
        lr: alpha, at least 0.
        betas: (b1, b2), each in [0, 1).

    Raises:
        ValueError: a value outside its range, here or in a group.
        RuntimeError: in ``step``, a sparse gradient.

    Source: arXiv 1602.02830, Algorithm 4 and its defaults.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2**-10,
        betas: tuple[float, float] = (1 - 2**-3, 1 - 2**-10),
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As ``Optimizer.add_param_group``; checks the group's ``lr`` and ``betas``."""
        group = {**self.defaults, **param_group}
        _check_rate(group["lr"], math.inf, "lr")
        if len(group["betas"]) != 2 or not all(0.0 <= beta < 1.0 for beta in group["betas"]):
            raise ValueError(f"betas must be two numbers in [0, 1), not {group['betas']!r}")
        super().add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; ``closure``, if any, is called once, before it, and its loss returned."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                grad = _dense_grad(parameter, "ShiftAdaMax")
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["mean"] = torch.zeros_like(parameter)
                    state["max_norm"] = torch.zeros_like(parameter)
                state["step"] += 1
                mean, max_norm = state["mean"], state["max_norm"]
                mean.mul_(beta1).add_(grad, alpha=1.0 - beta1)
                torch.maximum(max_norm.mul_(beta2), grad.abs(), out=max_norm)
                # Division by infinity is the step of 0 that a norm of 0 stands for.
                divisor = ap2(max_norm).masked_fill_(max_norm == 0, math.inf)
                correction = torch.tensor(1.0 / (1.0 - beta1 ** state["step"]), dtype=torch.float64)
                rate = float(group["lr"]) * float(ap2(correction))
                # Divided first: a subnormal mean times the rate would lose bits.
                parameter.add_(mean / divisor, alpha=-rate)
        return loss


class Bop(Optimizer):
    """Binary optimizer: no latent weights, only flips of binary ones.

    For the gradient ``g`` of a step::

        m = (1 - gamma) * m + gamma * g
        w = -w  where |m| > threshold and sign(m) = sign(w)

    At equality with ``threshold`` (rounded to the parameter's dtype) there is no flip. The
    parameters are ``latent_weight`` tensors, whose sign is the weight (that of 0 is +1): from the
    first step with a gradient on, their values are +1 and -1, whatever they were, and a flip
    negates them. Leave norms and all else to another optimizer (:class:`CombinedOptimizer`).

    ``gamma`` is the group's ``lr``, so that torch's schedulers and :func:`scale_rates` decay it,
    as the paper does. It is no step size: :func:`glorot_groups` has no meaning here.

    Args:
        params: parameters or groups of them; a group's own gamma is its ``lr``.
        gamma: adaptivity rate, in [0, 1].
        threshold: tau, at least 0.

    Raises:
        ValueError: a value outside its range, here or in a group, or a group with ``gamma``.
        RuntimeError: in ``step``, a sparse gradient.

    Source: Helwegen et al., arXiv 1906.02107, Algorithm 1.
    """

    def __init__(self, params: ParamsT, gamma: float = 1e-3, threshold: float = 1e-8) -> None:
        super().__init__(params, {"lr": gamma, "threshold": threshold})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As ``Optimizer.add_param_group``; checks the group's ``lr`` and ``threshold``."""
        if "gamma" in param_group:
            raise ValueError("a group of Bop has its gamma under 'lr'; rename 'gamma' to 'lr'")
        group = {**self.defaults, **param_group}
        _check_rate(group["lr"], 1.0, "gamma (a group's lr)")
        _check_rate(group["threshold"], math.inf, "threshold")
        super().add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; ``closure``, if any, is called once, before it, and its loss returned."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            gamma = float(group["lr"])
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                grad = _dense_grad(parameter, "Bop")
                state = self.state[parameter]
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                mean = state["mean"]
                mean.mul_(1.0 - gamma).add_(grad, alpha=gamma)
                signs = sign_bit(parameter)
                flips = mean * signs > group["threshold"]
                parameter.copy_(torch.where(flips, -signs, signs))
        return loss


class CombinedOptimizer(Optimizer):
    """Several optimizers over different parameters, used as one.

    ::

        latent, rest = bnn.split_parameters(model)
        optimizer = bnn.CombinedOptimizer(bnn.Bop(latent), torch.optim.Adam(rest, lr=1e-3))

    ``param_groups`` are the members' groups in their order, the same dicts, and ``state`` is the
    members' state, so that schedulers, ``zero_grad`` and ``state_dict`` are those of any optimizer.
    A state is loaded into the same members, in the same order. From now on load states here, and
    step here: the members' ``optimizers`` are only for inspection.

    Raises:
        ValueError: no optimizer, or a parameter that two of them have.
        TypeError: in ``add_param_group``, always; add the group to a member before combining.
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        if not optimizers:
            raise ValueError("no optimizers to combine; give at least one")
        super().__init__([group for member in optimizers for group in member.param_groups], {})
        for member in optimizers:
            self.state.update(member.state)
        self.optimizers = optimizers
        self._share()

    def _share(self) -> None:
        """Gives the members this optimizer's groups and state."""
        first = 0
        for member in self.optimizers:
            last = first + len(member.param_groups)
            groups = self.param_groups[first:last]
            member.__setstate__({"state": self.state, "param_groups": groups})
            first = last

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "optimizers": self.optimizers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # what load_state_dict ends with, and copying
        self._share()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused: it would not say which member the group is for."""
        if hasattr(self, "optimizers"):
            raise TypeError("add the group to one of the optimizers before they are combined")
        super().add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """A step of every member; ``closure``, if any, is called once, before the first."""
        loss = _evaluate(closure)
        for member in self.optimizers:
            member.step()
        return loss


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """``model``'s latent weights, layer by layer, and all its other parameters; each once."""
    latent: dict[nn.Parameter, None] = {}
    for module in model.modules():
        weight = getattr(module, "latent_weight", None)
        if isinstance(weight, nn.Parameter):
            latent[weight] = None
    return list(latent), [p for p in model.parameters() if p not in latent]


def glorot_groups(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """Parameter groups whose rate for the latent weights of layer k is ``lr * gamma_k``.

    ``gamma_k = 1 / sqrt(1.5 / (fan_in + fan_out))``, the fans as for ``xavier_uniform_``: for a
    kernel, channels times its height and width (channels of one group, if depthwise).

    Returns:
        One group for each layer with latent weights, in the model's order, then one at ``lr``
        with all other parameters, if there are any. Each has ``params``, ``lr`` and
        ``initial_lr``; schedulers multiply the latter.

    Source: arXiv 1602.02830, Algorithm 1, and ``W_LR_scale="Glorot"`` of the published code.
    """
    latent, rest = split_parameters(model)
    groups: list[dict[str, Any]] = []
    for weight in latent:
        window = math.prod(weight.shape[2:])
        fans = (weight.shape[0] + weight.shape[1]) * window
        rate = lr / math.sqrt(1.5 / fans)
        groups.append({"params": [weight], "lr": rate, "initial_lr": rate})
    if rest:
        groups.append({"params": rest, "lr": lr, "initial_lr": lr})
    return groups


def scale_rates(optimizer: Optimizer, factor: float) -> None:
    """Sets every group's ``lr`` to ``initial_lr * factor``.

    A group without ``initial_lr`` takes its present ``lr`` for it, like torch's schedulers do.
    ``state_dict`` keeps both.
    """
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def clip_latent_after_step(optimizer: Optimizer, model: nn.Module) -> RemovableHandle:
    """Makes the clipping of ``model``'s latent weights to [-1, 1] a part of ``optimizer.step()``.

    Norms' weights and biases keep their values. ``model`` may be wrapped in
    DistributedDataParallel: every process clips alike, after equal steps.

    Returns:
        A handle; ``handle.remove()`` ends the clipping. The hook is no part of ``state_dict``,
        and stays when a state is loaded.

    Source: arXiv 1602.02830, Algorithm 1: ``W <- clip(Update(...), -1, 1)``.
    """

    def clip(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        clip_latent_(model)

    return optimizer.register_step_post_hook(clip)


# --- schedules ----------------------------------------------------------------------------------
# Each returns the factor of the initial rate before `step` (from 0) of `total` optimizer steps;
# from `total` on it is that of `total`.


def constant(step: int, total: int) -> float:
    """1 at every step."""
    _progress(step, total)
    return 1.0


def cosine(step: int, total: int) -> float:
    """Half a cosine from 1 to 0: ``(1 + cos(pi * step / total)) / 2``."""
    return 0.5 * (1.0 + math.cos(math.pi * _progress(step, total)))


def exponential(step: int, total: int, final: float) -> float:
    """``final ** (step / total)``; ``final`` is the last rate over the first, above 0.

    The schedule of the Theano experiments of arXiv 1602.02830: MNIST's is ``final = 1e-4``.
    """
    if not 0.0 < final < math.inf:
        raise ValueError(f"final is the last rate over the first, above 0, not {final!r}")
    return float(final ** _progress(step, total))


def halving(step: int, total: int, every: int) -> float:
    """``2 ** -(step // every)``: halved after each ``every`` optimizer steps.

    Keeps a power of two one. The schedule of the Torch7 experiments of arXiv 1602.02830: every 20
    or 50 epochs.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1 step, not {every!r}")
    _progress(step, total)
    return math.ldexp(1.0, -(min(step, total) // every))


def _progress(step: int, total: int) -> float:
    """The part of ``total`` that is done, 0 to 1."""
    if total < 1 or step < 0:
        raise ValueError(f"step must be 0 or more, of 1 step or more; not {step!r} of {total!r}")
    return min(step, total) / total


def _check_rate(value: float, most: float, what: str) -> None:
    if not 0.0 <= value <= most or value == math.inf:
        limits = "finite and at least 0" if most == math.inf else f"0 to {most:g}"
        raise ValueError(f"{what} must be {limits}, not {value!r}")
