"""Meta-tasks: a network, data and a loss; several trainings of one at the same time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import functional_call, replace_all_batch_norm_modules_

from crossreg.core.errors import UserError
from crossreg.core.random import derive_seed, forked_rng
from crossreg.losses import Loss, as_loss
from crossreg.optimizers import Layout

__all__ = ["MetaTask"]

HELD_OUT = 0.3
"""Of the examples: what inner steps never see."""


@dataclass(frozen=True, eq=False)
class MetaTask:
    """What an update rule is to train: a network on data.

    Attributes:
        name: as it is told of.
        build: makes the network, drawing from torch's default generator.
        x: inputs as the network takes them, `[N, ...]`.
        y: their targets, `[N, ...]`.
        loss: see `crossreg.losses`.
        batch_size: examples in an inner step.
    """

    name: str
    build: Callable[[], nn.Module]
    x: Tensor
    y: Tensor
    loss: Loss
    batch_size: int = 64

    @classmethod
    def of(
        cls,
        name: str,
        build: Callable[[], nn.Module],
        x: Tensor,
        y: Tensor,
        loss: Loss | nn.Module | str = "classification",
        batch_size: int = 64,
    ) -> MetaTask:
        """Return a task whose examples are shuffled, so that those held out are like the others.

        Raises:
            UserError: too few examples for a batch, or a network without weights to train.
        """
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        task = cls(name, build, x[order.to(x.device)], y[order.to(y.device)], as_loss(loss), batch_size)
        if task.num_inner < batch_size or len(x) - task.num_inner < batch_size:
            raise UserError(
                f"task {name!r} has {len(x)} examples, too few for batches of {batch_size} from its two parts; use a "
                "smaller batch size or more data"
            )
        if not task.layout.shapes:
            raise UserError(f"the network of task {name!r} has no weights to train")
        return task

    @property
    def num_inner(self) -> int:
        """Examples that inner steps see; they come first."""
        return round((1 - HELD_OUT) * len(self.x))

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self.x.device

    @cached_property
    def template(self) -> nn.Module:
        """A network for its form; normalization takes the statistics of the batch, and keeps none."""
        with forked_rng(self.device):
            model = self.build()
        return replace_all_batch_norm_modules_(model).to(self.device).train()

    @cached_property
    def names(self) -> list[str]:
        """Of the weights."""
        return [name for name, parameter in self.template.named_parameters() if parameter.requires_grad]

    @cached_property
    def layout(self) -> Layout:
        """Of the weights, side by side."""
        parameters = dict(self.template.named_parameters())
        return Layout.of(parameters[name] for name in self.names)

    def initial(self, seed: int) -> Tensor:
        """Return the weights of a fresh network, `[P]`."""
        with forked_rng(self.device):
            torch.manual_seed(seed)
            parameters = dict(self.build().named_parameters())
        return self.layout.flat([parameters[name].detach() for name in self.names]).float().to(self.device)

    def rows(self, steps: int, held_out: bool, *seed: int | str) -> Tensor:
        """Return which examples are in the batches of some steps, `[steps, batch]`, drawn with replacement."""
        generator = torch.Generator().manual_seed(derive_seed(*seed, "held out" if held_out else "inner"))
        low, high = (self.num_inner, len(self.x)) if held_out else (0, self.num_inner)
        return torch.randint(low, high, (steps, self.batch_size), generator=generator).to(self.device)

    def value(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the scalar loss of a batch at weights `[P]`; can be differentiated and batched by `torch.func`."""
        weights = dict(zip(self.names, self.layout.apart(theta), strict=True))
        return self.loss(functional_call(self.template, weights, (x,)), y)
