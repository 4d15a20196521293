"""An update rule of one small network: what Adam and Adafactor know of a coordinate, mixed by eight hidden units."""

from __future__ import annotations

import torch
from torch import Tensor

from crossreg.optimizers.layout import Layout
from crossreg.optimizers.rule import UpdateRule, Weights

__all__ = ["MLPRule"]

_DECAYS = (0.9, 0.99, 0.999)
_DECAY_OF_SQUARES = 0.999
_TINY = 1e-24
"""Far below the square of a gradient that matters, so that its scale makes no difference; to the power of -1.5, as in
the derivative of a root, still a number of 32 bits."""
_LARGEST = 5.0
_BLOCK = 1 << 14
"""Coordinates whose features are made at once: so many stay in a processor's cache."""
_ODD, _EVEN, _HIDDEN = 10, 6, 8
_LIKE_ADAM = 4  # of the odd features


class MLPRule(UpdateRule):
    """A gated network of eight hidden units, a few more weights than a hundred, that starts out as Adam.

    Of gradients g, momenta m_i (decays .9, .99, .999), second moments v and their means over rows and columns r, c:

        odd o    g and m_i, each over its root mean square in the tensor;  m_i / sqrt(v);  m_i / sqrt(r c / mean(r))
        even e   sqrt of v, r and c, and |theta|, each over its root mean square;  |m_1| / sqrt(v), |m_3| / sqrt(v)
        update   sum_h (A o)_h max(0, B e + b)_h + s . o,   divided by its root mean square in the tensor

    The update is odd: with all gradients so far of the other sign it is the other way, and no constant drift can be
    learned. Neither the size of gradients nor of weights changes it. So how far to go is left to the learning rate and
    its schedule, and shrinking weights to weight decay, both outside.

    Source: the features are those of `adafac_mlp_lopt` in google/learned_optimization (Metz et al. 2022,
    arXiv:2203.11860); width 8, normalized inputs and outputs, schedule and decay outside as in Celo2
    (arXiv:2602.19142). Ours are the odd form by gates, the absence of the time, and the start at Adam (Kingma and Ba
    2015, arXiv:1412.6980).
    """

    name = "mlp"
    features = 1
    memory = len(_DECAYS) + 3
    lr = 3e-3

    def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return weights to start meta-training from: Adam, but for small random numbers."""

        def normal(*shape: int, scale: float) -> Tensor:
            return scale * torch.randn(shape, generator=generator)

        skip = torch.zeros(_ODD)
        skip[_LIKE_ADAM] = 1
        return {
            "odd": normal(_HIDDEN, _ODD, scale=0.01),
            "gate": normal(_HIDDEN, _EVEN, scale=_EVEN**-0.5),
            "bias": torch.zeros(_HIDDEN),
            "skip": skip,
        }

    def update(
        self, weights: Weights, memory: Tensor, gradient: Tensor, theta: Tensor, step: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """Return a direction and what is kept, see `UpdateRule.update`."""
        kept = _remember(memory, gradient, layout)
        # means of what was seen: without the zeros they started from
        decays = gradient.new_tensor((*_DECAYS, *[_DECAY_OF_SQUARES] * 3)).log()
        decays = decays.reshape(-1, *(1,) * gradient.ndim)
        seen = kept / -torch.expm1(step * decays)
        means = layout.mean(torch.cat([torch.stack([gradient, *seen[:3]]).square(), seen[3:], theta.square()[None]]))
        mixed = [
            _mix(weights, *_features(seen[..., some], gradient[..., some], theta[..., some], means[..., some] + _TINY))
            for some in (slice(begin, begin + _BLOCK) for begin in range(0, gradient.shape[-1], _BLOCK))
        ]
        update = torch.cat(mixed, -1)
        return update * (layout.mean(update.square()) + _TINY).rsqrt(), kept


def _remember(memory: Tensor, gradient: Tensor, layout: Layout) -> Tensor:
    """Return the three momenta, and the three means of squares, `[6, *, P]`."""
    square = gradient.square()
    momenta = [torch.lerp(gradient, before, decay) for before, decay in zip(memory[:3].unbind(), _DECAYS, strict=True)]
    squares = [
        torch.lerp(new, before, _DECAY_OF_SQUARES)
        for before, new in zip(memory[3:].unbind(), (square, *layout.rows_and_columns(square)), strict=True)
    ]
    return torch.stack([*momenta, *squares])


def _features(seen: Tensor, gradient: Tensor, theta: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Return the odd features `[10, *, P]` and the even ones `[6, *, P]`, see `MLPRule`.

    Args:
        seen: momenta and means of squares, `[6, *, P]`, bias corrected.
        gradient: `[*, P]`.
        theta: `[*, P]`.
        means: of the squares of gradient, momenta and theta, and of the means of squares, over each tensor:
            `[8, *, P]`, positive.
    """
    momenta, squares = seen[:3], seen[3:]
    factored = squares[1] * squares[2] / means[5]
    odd = torch.cat(
        [
            torch.cat([gradient[None], momenta]) * means[:4].rsqrt(),
            momenta * (squares[0] + _TINY).rsqrt(),
            momenta * (factored + _TINY).rsqrt(),
        ]
    ).clamp(-_LARGEST, _LARGEST)
    # |theta| by itself: the derivative of a root is infinite at 0
    sizes = [(squares / means[4:7]).sqrt(), (theta.abs() * means[7].rsqrt())[None]]
    even = torch.cat([*sizes, odd[_LIKE_ADAM : _LIKE_ADAM + 3 : 2].abs()])
    return odd, even / (1 + even)


def _mix(weights: Weights, odd: Tensor, even: Tensor) -> Tensor:
    """Return the odd features, each times what the gates of the even ones make of it: `[*, P]`."""
    gates = torch.addmm(weights["bias"][:, None], weights["gate"], even.flatten(1)).relu()
    directions = torch.cat([weights["odd"], weights["skip"][None]]) @ odd.flatten(1)
    return ((gates * directions[:-1]).sum(0) + directions[-1]).view(odd.shape[1:])
