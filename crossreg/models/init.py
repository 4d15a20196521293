"""The initial weights of the models written here."""

from __future__ import annotations

from torch import nn

__all__ = ["kaiming_"]


def kaiming_(model: nn.Module, *, output: nn.Linear) -> nn.Module:
    """Initialize convolutions and linear layers for the ReLU that follows them, in place.

    Args:
        model: Any module.
        output: The last layer, which no ReLU follows: it keeps PyTorch's smaller default, so that training
            starts from nearly uniform predictions.

    Returns:
        The same module.

    Source:
        He et al. 2015, arXiv:1502.01852, eq. 14 (convolutions, fan-out) and eq. 10 (linear layers, fan-in).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear) and module is not output:
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return model
