"""What a user may set about serving."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from crossreg.services.settings import Flag, Settings

__all__ = ["ServeConfig"]


class ServeConfig(Settings):
    """How a model is served."""

    host: Annotated[str, Flag()] = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: Annotated[int, Flag()] = Field(default=8000, ge=0, le=65535, description="0 takes any free port.")
    replicas: Annotated[int | None, Flag(default="2, on one CPU 1")] = Field(
        default=None,
        ge=1,
        description="Processes that hold the model; with two or more, one may die without anybody waiting for it.",
    )
    samples: Annotated[int, Flag()] = Field(
        default=16, ge=1, le=10_000, description="Noise draws averaged in a prediction."
    )
    seed: Annotated[int, Flag()] = Field(
        default=0, ge=0, lt=2**63, description="Fixes the draws: the same input gets the same answer."
    )
    max_batch: Annotated[int, Flag()] = Field(default=32, ge=1, le=4096, description="Examples in one forward pass.")
    batch_wait_ms: Annotated[float, Flag()] = Field(
        default=2.0, ge=0, le=10_000, description="How long a replica waits to fill a batch, milliseconds."
    )
    max_examples: Annotated[int, Flag()] = Field(default=256, ge=1, description="Examples in one request.")
    max_request_mb: Annotated[float, Flag()] = Field(
        default=8.0, gt=0, le=1000, description="Size of one request's body, 10^6 bytes."
    )
    poll_seconds: Annotated[float, Flag()] = Field(
        default=10.0, ge=0, description="Seconds between two looks at the alias; 0: never again."
    )
    timeout: float = Field(
        default=60.0, gt=0, description="Seconds until a request that no replica has answered gets 503."
    )
    trusted: tuple[str, ...] = Field(
        default=(), description="Functions package.module:function that a model's description may name to build it."
    )
    verbose: Annotated[bool, Flag()] = Field(default=False, description="Show Ray's own messages.")

    @property
    def max_bytes(self) -> int:
        """Bytes that a request's body may have."""
        return int(self.max_request_mb * 1e6)
