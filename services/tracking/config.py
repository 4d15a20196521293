"""What a user may set about tracking."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, field_validator

from crossreg.services.settings import Flag, Settings
from crossreg.services.tracking.uri import check_uri

__all__ = ["TrackingConfig"]


class TrackingConfig(Settings):
    """Where runs are tracked and under which names."""

    # The input is hidden in validation errors and the URI in repr: either could print a password.
    model_config = ConfigDict(hide_input_in_errors=True)

    uri: Annotated[str | None, Flag("tracking-uri", default="MLFLOW_TRACKING_URI, else sqlite:///mlflow.db here")] = (
        Field(default=None, repr=False, description="MLflow store or server.")
    )
    experiment: Annotated[
        str | None, Flag(default="DATA-MODEL, as digits-cnn; meta-train and reproduce have one of their name")
    ] = Field(default=None, min_length=1, max_length=500, description="MLflow experiment.")
    tags: dict[str, str] = Field(default_factory=dict, description="Extra tags of the run; they win over the job's.")

    @field_validator("experiment")
    @classmethod
    def _printable(cls, experiment: str | None) -> str | None:
        if experiment is not None and not experiment.isprintable():
            raise ValueError("an experiment's name holds no line breaks or control characters")
        return experiment

    @field_validator("uri")
    @classmethod
    def _checked(cls, uri: str | None) -> str | None:
        return None if uri is None else check_uri(uri)
