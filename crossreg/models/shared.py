"""An ensemble of multilayer perceptrons that share their weights, as TabM has it."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn

from crossreg.models.checks import flag
from crossreg.models.ensemble import Ensemble
from crossreg.models.mlp import LinearSkip, Skipping, mlp

__all__ = ["SharedMLP"]


class SharedMLP(Ensemble):
    """M `mlp`s with one set of weights, whose inputs and outputs of every layer each member scales by its own factors.

    A member has its own last layer; normalization and its running statistics are shared, and so is the linear function
    that `linear_skip` adds.

    Args:
        members: M.
        task: see `Ensemble`.
        input_shape: of one example; flattened.
        num_outputs: width of the last layers.
        linear_skip: of `mlp`.
        options: the others of `mlp`.

    Source: Gorishniy, Kotelnikov, Babenko 2025, TabM, arXiv:2410.24210 (which factors there are, and that the first
    ones start at random signs); Wen, Tran, Ba 2020, BatchEnsemble, arXiv:2002.06715 (the layer).
    """

    def __init__(
        self,
        members: int,
        task: Literal["classification", "regression"],
        *,
        input_shape: tuple[int, ...],
        num_outputs: int,
        linear_skip: bool = False,
        **options: int | str | float,
    ) -> None:
        flag("linear_skip of 'mlp'", linear_skip)
        nn.Module.__init__(self)  # it holds no member by itself
        self._begin(members, task)
        body = mlp(input_shape=input_shape, num_outputs=num_outputs, **options)  # type: ignore[arg-type]
        assert isinstance(body, nn.Sequential)
        last = body[-1]
        assert isinstance(last, nn.Linear)
        self.body = body[:-1]
        scales: dict[str, nn.Parameter] = {}
        for name, layer in self.body.named_children():
            if isinstance(layer, nn.Linear):
                first = not scales
                size = (members, layer.in_features)
                scales[f"{name}_in"] = nn.Parameter(torch.randint(0, 2, size) * 2.0 - 1 if first else torch.ones(size))
                scales[f"{name}_out"] = nn.Parameter(torch.ones(members, layer.out_features))
        self.scales = nn.ParameterDict(scales)
        bound = 1 / math.sqrt(last.in_features)
        self.weight = nn.Parameter(torch.empty(members, last.out_features, last.in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, last.out_features))
        self.skip = LinearSkip(math.prod(input_shape), num_outputs) if linear_skip else None
        if linear_skip:
            nn.init.zeros_(self.weight)

    def each(self, x: Tensor) -> Tensor:
        """Return every member's output of every row, `[M, B, ...]`."""
        rows = x.expand(self.count, *x.shape).flatten(0, 1)
        return self._run(rows, [len(x)] * self.count).unflatten(0, (self.count, len(x)))

    def dealt(self, x: Tensor) -> Tensor:
        """Return one member's output of a row, `[B, ...]`: the first rows are the first member's."""
        return self._run(x, [len(part) for part in x.tensor_split(self.count)])

    def alone(self, member: int) -> nn.Module:
        """Return one member as an `mlp` by itself, its factors in the weights."""
        network = copy.deepcopy(self.body)  # with the noise that its layers may have
        for name, layer in network.named_children():
            if isinstance(layer, nn.Linear):
                before, after = self.scales[f"{name}_in"][member], self.scales[f"{name}_out"][member]
                layer.weight = nn.Parameter((after[:, None] * layer.weight * before).detach())
        output = nn.Linear(self.weight.shape[2], self.weight.shape[1])
        output.weight = nn.Parameter(self.weight[member].detach().clone())
        output.bias = nn.Parameter(self.bias[member].detach().clone())
        network.add_module("output", output)
        if self.skip is None:
            return network.train(self.training)
        return Skipping(network, copy.deepcopy(self.skip)).train(self.training)

    def _run(self, x: Tensor, counts: list[int]) -> Tensor:
        """Return a row's output of the member that it is, of which the first `counts[0]` rows are the first."""
        linear = 0.0 if self.skip is None else self.skip(x)
        times = torch.tensor(counts, device=x.device)
        whose = torch.arange(self.count, device=x.device).repeat_interleave(times, output_size=len(x))
        for name, layer in self.body.named_children():
            if isinstance(layer, nn.Linear):
                x = layer(x * self.scales[f"{name}_in"][whose]) * self.scales[f"{name}_out"][whose]
            else:
                x = layer(x)
        parts = [
            nn.functional.linear(part, weight, bias)
            for part, weight, bias in zip(x.split(counts), self.weight, self.bias, strict=True)
        ]
        return torch.cat(parts) + linear
