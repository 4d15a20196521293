"""What a user may set about tracking."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from services.tracking.uri import check_uri

__all__ = ["TrackingConfig"]


class TrackingConfig(BaseModel):
    """Where runs are tracked and under which names.

    Attributes:
        uri: tracking URI; None is `MLFLOW_TRACKING_URI` where set, else `sqlite:///<cwd>/mlflow.db`.
        experiment: experiment name; None leaves it to the job.
        tags: extra tags of the run; they win over the job's own.
    """

    # The input is hidden in validation errors and the URI in repr: either could print a password.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    uri: str | None = Field(default=None, repr=False)
    experiment: str | None = Field(default=None, min_length=1, max_length=500)
    tags: dict[str, str] = {}

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
