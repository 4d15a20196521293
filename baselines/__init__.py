"""What cross-regularization is compared with: one file a method, by name."""

from __future__ import annotations

from crossreg.baselines import (
    asha,
    cpr,
    ensemble,
    fixed_noise,
    grid,
    mc_dropout,
    networks,
    none,
    optuna,
    pb2,
    pbt,
    random_search,
    sam,
    t1_t2,
    tuned_search,
    weight_decay_dropout,
)
from crossreg.services.comparison.method import Method
from crossreg.services.comparison.reference import CrossReg, Refit

__all__ = ["METHODS"]

METHODS: dict[str, Method] = {
    kind.name: kind()
    for kind in (
        CrossReg,
        Refit,
        none.Plain,
        none.PlainAllData,
        fixed_noise.FixedNoise,
        fixed_noise.FixedNoiseAllData,
        weight_decay_dropout.WeightDecayDropout,
        weight_decay_dropout.Tuned,
        sam.SAM,
        sam.GSAM,
        cpr.CPR,
        t1_t2.T1T2Run,
        mc_dropout.MCDropout,
        ensemble.Ensemble,
        networks.SharedEnsemble,
        networks.MixedEnsemble,
        networks.Wide,
        pbt.PBT,
        pbt.AsynchronousPBT,
        pbt.StockPBT,
        pbt.StockAsynchronousPBT,
        pb2.PB2,
        tuned_search.TunedSearch,
        random_search.RandomSearch,
        grid.Grid,
        asha.ASHA,
        optuna.Optuna,
    )
}
"""Every method by its name: cross-regularization, and its baselines."""
