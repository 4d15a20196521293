"""Learnable noise after normalization layers.

A hook on each normalization layer adds what a small child module `noise` draws:

    additive        h = norm(u) + sigma * eps
    multiplicative  h = norm(u) * (1 + sigma * eps),      eps ~ N(0, I)

so it also works where the layer's class is somebody else's, and the names of the model's own weights stay as they
are. A layer that normalizes and activates in one (timm's `BatchNormAct2d`) gets it before its activation, one that
wraps another leaves it to that, and of several outputs the first is taken for the normalized one. Source:
cross-regularization (arXiv 2506.19755), noise directly after normalization, before the activation.

Multiplicative noise in place of dropout is Gaussian dropout, sigma^2 = p / (1 - p), whose rate is learned (Srivastava
et al. 2014, section 10; Kingma, Salimans, Welling 2015, arXiv:1506.02557).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from crossreg.core.errors import UserError
from crossreg.core.modules import Where, remove_hook, rho_device_and_dtype, selects, unwrap
from crossreg.core.random import seed_device
from crossreg.regularizers.base import Hyperparameter, Regularizer, RhoModule, part_name
from crossreg.regularizers.normal import standard_normal_like
from crossreg.regularizers.temperature import learn_temperature, remove_temperature

__all__ = [
    "NOISE",
    "Draw",
    "Noise",
    "Stochastic",
    "dropout_layers",
    "inject_noise",
    "noise_layers",
    "remove_noise",
    "sampling",
    "set_draw",
    "sigmas",
    "stochastic",
]

Granularity = Literal["layer", "unit"]
Form = Literal["additive", "multiplicative"]
After = Literal["normalization", "dropout"]

_SIGMA = Hyperparameter(
    "noise",
    help="Gaussian noise after every normalization layer; its scale sigma",
    unit="standard deviations of the normalized activation",
    default=0.1,
    range=(0.01, 10.0),
    direct=True,
)
_DEFAULT_FORM: dict[After, Form] = {"normalization": "additive", "dropout": "multiplicative"}

# normalization layers that live outside torch (torchvision, timm, transformers) go by the name of a class they extend
_NORM_NAME = re.compile(r"(Batch|Layer|Group|Instance|RMS)Norm([123]d)?$")
_NORM_TYPES = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class Draw(NamedTuple):
    """One draw of all the noise of a model, to be had again: a seed, and the sign of every eps."""

    seed: int
    sign: float = 1.0


class Stochastic(RhoModule):
    """A module that draws at random: in training mode, and in predictions that average over draws.

    Attributes:
        predicts: draws in such predictions too, and in the held-out loss of a rho step.
        forced: draws in evaluation mode now; see `sampling`.
        learning: gradients reach rho now; off in the theta step, where rho is a constant.
        common: one draw for all examples of a batch now; see `sampling`.
        sign: of the draw; see `Draw`.
    """

    predicts = True
    forced = False
    learning = False
    common = False
    sign = 1.0


class Noise(Stochastic):
    """The noise of one layer: holds `rho` and adds a fresh draw to what it is given.

    It draws in training mode and passes its input through in evaluation mode; `sampling` forces it on.

    Args:
        shape: shape of sigma; `()` for one scale for the whole layer.
        channel_dim: dimension of the input that a sigma of shape `(C,)` runs along; None aligns sigma with the
            last dimensions.
        form: "additive" or "multiplicative".
        initial_sigma: positive start value, in standard deviations of the normalized activation.
        part: of the hyperparameter's name: number and name of the layer.
    """

    def __init__(
        self, shape: tuple[int, ...], channel_dim: int | None, form: Form, initial_sigma: float, part: str = ""
    ) -> None:
        super().__init__()
        self.part = part
        self.channel_dim = channel_dim
        self.form = form
        self.rate = 0.0  # of the dropout whose place it takes
        # requires_grad is off outside the rho step, so DDP and the theta optimizer pass rho by
        self.rho = nn.Parameter(_SIGMA.unconstrained(initial_sigma).expand(shape).clone(), requires_grad=False)

    @property
    def sigma(self) -> Tensor:
        """The noise scale in use, positive, of the shape given."""
        return _SIGMA.natural(self.rho)

    def hyperparameters(self) -> list[Hyperparameter]:
        """Return the noise scale."""
        return [_SIGMA.of_rho(self.rho, self.part)]

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with noise, of the same shape, dtype and memory layout."""
        if not (self.training or self.forced):
            return x
        if x.is_nested:
            return self._to_each(x)
        sigma = self.sign * (self.sigma if self.learning else self.sigma.detach()).to(x.dtype)
        if self.channel_dim is not None and sigma.ndim:
            dim = self.channel_dim % x.ndim
            sigma = sigma.reshape(-1, *[1] * (x.ndim - dim - 1))
        eps = standard_normal_like(x[:1] if self.common else x)
        return torch.addcmul(x, sigma if self.form == "additive" else sigma * x, eps)

    def _to_each(self, x: Tensor) -> Tensor:
        """Add noise to sequences of several lengths, one after another."""
        if self.common or (self.channel_dim is not None and self.rho.ndim):
            raise UserError(
                "noise that is the same for all rows, or has a scale for every channel of the second dimension, does "
                "not fit nested tensors; give the model padded ones"
            )
        return torch.nested.as_nested_tensor([self(one) for one in x.unbind()], layout=x.layout)

    def extra_repr(self) -> str:
        """Describe the layer in `print(model)`."""
        return f"{self.form}, shape={tuple(self.rho.shape)}, sigma={self.sigma.detach().mean():.4g}"


def inject_noise(
    model: nn.Module,
    granularity: Granularity = "layer",
    form: Form | None = None,
    initial_sigma: float | None = None,
    where: Where | None = None,
    after: After = "normalization",
    temperature: bool = True,
) -> nn.Module:
    """Put learnable noise after every normalization layer of a model, or in place of its dropout, in place.

    State-dict keys of the model's own weights stay as they are, and weights saved before still load with
    `strict=True`; each chosen layer gains one key `<layer>.noise.rho`. Convert to `SyncBatchNorm` *before* injecting,
    wrap in `DistributedDataParallel` or `torch.compile` *after*.

    Args:
        model: any module with BatchNorm, SyncBatchNorm, GroupNorm, LayerNorm, InstanceNorm or RMSNorm layers,
            their subclasses, or classes of such a name (torchvision's `FrozenBatchNorm2d`, `LayerNorm2d`).
        granularity: "layer" learns one sigma a layer, "unit" one for every channel or feature.
        form: "additive" (sigma in units of the normalized activation) or "multiplicative"; None takes the first after
            normalization, the second after dropout.
        initial_sigma: positive start value of every sigma; None takes 0.1, and in place of dropout of a rate p > 0
            sqrt(p / (1 - p)).
        where: which layers: a shell-style pattern of their names ("layer4.*"), several patterns, or a predicate
            `(name, module) -> bool`; None takes all.
        after: "normalization", or "dropout": the noise takes the place of `nn.Dropout` and its kin, whose own rate
            becomes 0 until `remove_noise`.
        temperature: give the model an output temperature too, which takes the work of calibrating away from the noise;
            see `learn_temperature`.

    Returns:
        The same model.

    Raises:
        UserError: no such layer, none chosen, noise already there, or an argument out of range.
    """
    if after not in _LAYERS:
        raise UserError(f"after is {after!r}; allowed are 'normalization' and 'dropout'")
    form = form or _DEFAULT_FORM[after]
    if granularity not in ("layer", "unit"):
        raise UserError(f"granularity is {granularity!r}; allowed are 'layer' and 'unit'")
    if form not in ("additive", "multiplicative"):
        raise UserError(f"form is {form!r}; allowed are 'additive' and 'multiplicative'")
    if initial_sigma is not None and not (isinstance(initial_sigma, int | float) and 0 < initial_sigma < math.inf):
        raise UserError(f"initial_sigma is {initial_sigma!r}; it must be a positive finite number")
    if model is not unwrap(model):
        raise UserError("inject_noise was given a wrapped model; inject first, then wrap with DDP or torch.compile")
    if (present := next(iter(noise_layers(model)), None)) is not None:
        raise UserError(f"layer {present!r} has noise already; call remove_noise(model) before injecting again")

    belongs, missing = _LAYERS[after]
    layers = {
        name: module
        for name, module in model.named_modules()
        if belongs(module) and not any(belongs(inner) for inner in module.modules() if inner is not module)
    }
    if not layers:
        raise UserError(f"{type(model).__name__} has no {after} layer to put noise after; {missing}")
    chosen = {name: module for name, module in layers.items() if selects(where, name, module)}
    if not chosen:
        raise UserError(f"where={where!r} selects none of the {after} layers: {', '.join(layers)}")
    for index, (name, module) in enumerate(chosen.items()):
        host = _activation(module) or module
        if hasattr(host, "noise"):
            raise UserError(f"layer {name!r} has an attribute 'noise' of its own; leave it out with `where`")
        shape, channel_dim = ((), None) if granularity == "layer" else _unit_shape(name, module)
        # numbered, since names sort alphabetically where they are shown
        start = _initial_sigma(module) if initial_sigma is None else initial_sigma
        noise = Noise(shape, channel_dim, form, start, part_name(index, name)).train(module.training)
        noise.to(*rho_device_and_dtype(module, model))
        if isinstance(module, _DropoutNd):
            noise.rate, module.p = module.p, 0.0
        host.add_module("noise", noise)
        if host is module:
            module.register_forward_hook(_add_noise)
        else:
            host.register_forward_pre_hook(_add_noise_before)
    for encoder in _encoders(model):
        # in evaluation mode it would pack sequences without their padding, which attention with hooks beside it, or
        # with gradients, does not take
        encoder.use_nested_tensor = False
    if temperature:
        learn_temperature(model)
    return model


def _encoders(model: nn.Module) -> list[nn.TransformerEncoder]:
    """Return the encoders of PyTorch's that hold noise."""
    found = (module for module in model.modules() if isinstance(module, nn.TransformerEncoder))
    return [one for one in found if any(isinstance(inner, Noise) for inner in one.modules())]


def _initial_sigma(layer: nn.Module) -> float:
    """Return where noise starts: that of Gaussian dropout of a layer's rate, or the default."""
    if isinstance(layer, _DropoutNd) and 0 < layer.p < 1:
        return math.sqrt(layer.p / (1 - layer.p))
    assert _SIGMA.default is not None
    return _SIGMA.default


def remove_noise(model: nn.Module, temperature: bool = True) -> nn.Module:
    """Take the noise out again, in place; the model's own weights stay as trained.

    Args:
        model: with noise, wrapped or not.
        temperature: take the output temperature out too.

    Raises:
        UserError: the model has no noise.
    """
    model = unwrap(model)
    layers = noise_layers(model)
    if not layers:
        raise UserError(f"{type(model).__name__} has no noise to remove; inject_noise(model) puts it in")
    modules = dict(model.named_modules())
    for encoder in _encoders(model):
        encoder.use_nested_tensor = encoder.enable_nested_tensor
    for name in layers:
        layer = modules[name]
        if isinstance(layer, _DropoutNd):
            layer.p = layers[name].rate
        del layer.noise
        remove_hook(layer._forward_hooks, _add_noise)
        remove_hook(layer._forward_pre_hooks, _add_noise_before)
    if temperature:
        remove_temperature(model)
    return model


def noise_layers(model: nn.Module) -> dict[str, Noise]:
    """Return `{layer name: its Noise}` in the order the model defines its layers.

    Raises:
        UserError: a layer was rebuilt after injection (as `convert_sync_batchnorm` does) and no longer adds its
            noise.
    """
    found = {}
    for name, module in unwrap(model).named_modules():
        noise = module._modules.get("noise")
        if isinstance(noise, Noise):
            hooks = {*module._forward_hooks.values(), *module._forward_pre_hooks.values()}
            if not {_add_noise, _add_noise_before} & hooks:
                raise UserError(f"layer {name!r} was rebuilt after inject_noise and lost its noise; inject last")
            found[name] = noise
    return found


def stochastic(model: nn.Module) -> list[Stochastic]:
    """Return every module that draws: noise, and what else a model was given.

    Raises:
        UserError: see `noise_layers`.
    """
    layers = list(noise_layers(model).values())
    others = (m for m in unwrap(model).modules() if isinstance(m, Stochastic) and not isinstance(m, Noise))
    return [*layers, *others]


def sigmas(model: nn.Module) -> dict[str, Tensor]:
    """Return a detached copy of every layer's sigma by its name (`noise/00_norm1`): a scalar, or one value a unit."""
    layers = noise_layers(model).values()
    return {f"{_SIGMA.name}/{noise.part}": noise.sigma.detach().clone() for noise in layers}


def dropout_layers(model: nn.Module) -> list[_DropoutNd]:
    """Return the layers that drop values: `nn.Dropout` and its kin, whatever their probability."""
    return [module for module in model.modules() if isinstance(module, _DropoutNd)]


@contextmanager
def sampling(
    model: nn.Module, *, learning: bool = False, dropout: bool = False, common: bool = False
) -> Iterator[None]:
    """Run the model in evaluation mode with noise on.

    Running statistics stay untouched; afterwards every module has the mode it had.

    Args:
        model: a model, with or without noise.
        learning: let gradients reach rho.
        dropout: dropout layers draw too; otherwise they pass their input through.
        common: every example of a batch gets the noise it would get alone, the same for all (common random numbers);
            for layers whose first dimension is the batch.
    """
    modes = [(module, module.training) for module in model.modules()]
    drawing = stochastic(model)
    model.eval()
    for module in drawing:
        module.forced, module.learning, module.common = module.predicts, learning, common
    for layer in dropout_layers(model) if dropout else ():
        layer.training = True
    try:
        yield
    finally:
        for module in drawing:
            module.forced, module.learning, module.common, module.sign = False, False, False, 1.0
        for member, training in modes:
            member.training = training


def set_draw(model: nn.Module, draw: Draw, device: torch.device) -> None:
    """Make the model's next forward pass use this draw; within `forked_rng` and `sampling`."""
    seed_device(device, draw.seed)
    for module in stochastic(model):
        module.sign = draw.sign


def is_normalization(module: nn.Module) -> bool:
    """Say whether noise belongs after this module, by its class or the name of a class it extends."""
    return isinstance(module, _NORM_TYPES) or any(_NORM_NAME.search(base.__name__) for base in type(module).__mro__)


_LAYERS: dict[str, tuple[Callable[[nn.Module], bool], str]] = {
    "normalization": (is_normalization, "add BatchNorm, LayerNorm, GroupNorm, InstanceNorm or RMSNorm layers"),
    "dropout": (lambda module: isinstance(module, _DropoutNd), "add nn.Dropout layers"),
}


def _add_noise(module: nn.Module, args: Any, output: Any) -> Any:
    """Add noise to what a layer returns, to the first of several tensors."""
    if isinstance(output, Tensor):
        return module.noise(output)  # type: ignore[operator]
    if not isinstance(output, list | tuple) or not output or not isinstance(output[0], Tensor):
        raise UserError(
            f"a normalization layer ({type(module).__name__}) returns a {type(output).__name__} with no tensor first; "
            "leave it out with `where`"
        )
    several = (module.noise(output[0]), *output[1:])  # type: ignore[operator]
    return type(output)(*several) if hasattr(output, "_fields") else type(output)(several)


def _add_noise_before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Add noise to what an activation is given."""
    return (module.noise(args[0]), *args[1:])  # type: ignore[operator]


def _activation(module: nn.Module) -> nn.Module | None:
    """Return the activation that a normalization layer applies to its own output, or None."""
    for name, child in module.named_children():
        if name in ("act", "activation") or type(child).__module__ == nn.ReLU.__module__:
            return None if isinstance(child, nn.Identity) else child
    return None


def _unit_shape(name: str, module: nn.Module) -> tuple[tuple[int, ...], int | None]:
    """Return the shape of sigma and the input dimension it runs along, for one sigma a unit."""
    size: Any = None
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        # torchvision's LayerNorm2d normalizes channels of an NCHW input
        if type(module).__name__.endswith("2d"):
            return (module.normalized_shape[0],), 1
        return tuple(module.normalized_shape), None
    if isinstance(module, _InstanceNorm):
        # inputs without a batch dimension are allowed, so count from the end
        kinds = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
        spatial = next(index for index, kind in enumerate(kinds, 1) if isinstance(module, kind))
        return (module.num_features,), -(spatial + 1)
    size = getattr(module, "num_features", getattr(module, "num_channels", None))
    weight = getattr(module, "weight", None)
    if not size and isinstance(weight, Tensor) and not nn.parameter.is_lazy(weight):
        last = re.search(r"(Layer|RMS)Norm$", type(module).__name__)
        if last:
            return tuple(weight.shape), None
        size = weight.numel()
    if not size:
        raise UserError(
            f"cannot tell the number of units of layer {name!r} ({type(module).__name__}) before its "
            "first forward; use granularity='layer' or initialize the lazy layer first"
        )
    return (int(size),), 1


def _attach(model: nn.Module, value: float | None, **options: Any) -> None:
    where = options.pop("where", None)
    inject_noise(model, initial_sigma=value, where=where, temperature=False, **options)


def _remove(model: nn.Module) -> None:
    if noise_layers(model):
        remove_noise(model, temperature=False)


NOISE = Regularizer(
    _SIGMA,
    _attach,
    _remove,
    options={"granularity": Granularity, "form": Form, "where": Where, "after": After},
    exported=True,
    default_with=lambda options: None if options.get("after") == "dropout" else _SIGMA.default,
)
