"""What may be set about a meta-training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from crossreg.services.settings import MOST, Flag, Settings

__all__ = ["MetaTrainConfig"]


class MetaTrainConfig(Settings):
    """What is meta-trained on what: everything that decides the result, but for rounding."""

    tasks: Annotated[tuple[str, ...], Flag(text="DATA:NETWORK,...")] = Field(
        default=("digits:mlp-relu", "digits:mlp-sigmoid", "digits:mlp-norm", "digits:cnn-norm"),
        min_length=1,
        max_length=100,
        description="What inner trainings are of. DATA as `crossreg train --data` takes it; NETWORK one of the small "
        "ones mlp-relu, mlp-sigmoid, mlp-norm and cnn-norm, which see images at 8x8, or what `--model` takes.",
    )
    rule: Annotated[Literal["mlp", "lstm"], Flag()] = Field(
        default="mlp", description="Form of the update rule: a gated network of 8 units, or a coordinate-wise LSTM."
    )
    meta_loss: Annotated[str, Flag()] = Field(
        default="held-out",
        description="What is lowered: train, held-out, sam, gsam, gam, sam-held-out, gsam-held-out or gam-held-out.",
    )
    radius: Annotated[float, Flag()] = Field(
        default=0.05, gt=0, description="Of sam, gsam and gam: how far they look for a worse point."
    )
    horizon: Annotated[int, Flag()] = Field(
        default=2000, ge=1, le=MOST, description="Steps of the longest inner trainings."
    )
    iterations: Annotated[int, Flag()] = Field(default=1500, ge=1, le=MOST, description="Updates of the rule.")
    trainings: Annotated[int, Flag()] = Field(
        default=16, ge=1, le=10_000, description="Inner trainings at the same time, over all actors."
    )
    window: Annotated[int, Flag()] = Field(
        default=20, ge=1, le=10_000, description="Inner steps between updates of the rule, on average."
    )
    estimator: Annotated[Literal["gradient", "nres"] | None, Flag(default="nres, of the lstm gradient")] = Field(
        default=None,
        description="nres compares pairs of rules that stay perturbed through a training, which a short window does "
        "not mislead; gradient differentiates through the window, for rules of many weights.",
    )
    lr: float = Field(default=3e-3, gt=0, description="Of Adam on the rule's weights.")
    sigma: float = Field(default=0.01, gt=0, description="Of nres: deviation of the perturbations.")
    inner_lr: Annotated[float | None, Flag(default="the rule's")] = Field(
        default=None, gt=0, description="Learning rate of inner trainings, and of the rule where none is given later."
    )
    weight_decay: float = Field(default=0.01, ge=0, description="Of inner trainings.")
    emphasis: float = Field(
        default=2.0,
        ge=0,
        le=100,
        description="How much more the end of an inner training counts than its way: a power.",
    )
    spread: float = Field(
        default=0.5, ge=0, le=10, description="How far the scales of inner trainings' weights differ: ln c up to this."
    )
    batch_size: int = Field(default=64, ge=1, le=MOST, description="Examples in an inner step.")
    seed: Annotated[int, Flag("seed")] = Field(default=0, ge=0, le=2**62, description="Of all that is random.")

    @field_validator("meta_loss")
    @classmethod
    def _known(cls, given: str) -> str:
        from crossreg.meta import meta_loss

        meta_loss(given)
        return given

    @field_validator("tasks")
    @classmethod
    def _pairs(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for task in given:
            data, _, network = task.partition(":")
            if not (data and network):
                raise ValueError(f"{task!r} is not of the form DATA:NETWORK, e.g. digits:mlp-relu")
        return given
