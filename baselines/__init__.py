"""What cross-regularization is compared with: one file a method, by name."""

from __future__ import annotations

from baselines import (
    asha,
    cpr,
    crossreg,
    ensemble,
    fixed_noise,
    grid,
    mc_dropout,
    none,
    optuna,
    pb2,
    pbt,
    random_search,
    sam,
    t1_t2,
    weight_decay_dropout,
)
from services.comparison.method import Method
from crossreg.core.errors import UserError, nearest

__all__ = ["METHODS", "method"]

METHODS: dict[str, Method] = {
    kind.name: kind()
    for kind in (
        crossreg.CrossReg,
        crossreg.Refit,
        none.Plain,
        none.AllData,
        fixed_noise.FixedNoise,
        fixed_noise.AllData,
        weight_decay_dropout.WeightDecayDropout,
        weight_decay_dropout.Tuned,
        sam.SAM,
        sam.GSAM,
        cpr.CPR,
        t1_t2.T1T2,
        mc_dropout.MCDropout,
        ensemble.Ensemble,
        pbt.PBT,
        pbt.AsynchronousPBT,
        pbt.StockPBT,
        pbt.StockAsynchronousPBT,
        pb2.PB2,
        random_search.RandomSearch,
        grid.Grid,
        asha.ASHA,
        optuna.Optuna,
    )
}
"""Every method by its name."""


def method(name: str) -> Method:
    """Return a method.

    Raises:
        UserError: no such method.
    """
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}{nearest(name, METHODS)}; allowed are {', '.join(METHODS)}")
    return METHODS[name]
