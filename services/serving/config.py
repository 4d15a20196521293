"""What a user may set about serving."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ServeConfig"]


class ServeConfig(BaseModel):
    """How a model is served.

    Attributes:
        host: address to listen on.
        port: 0 takes any free one.
        replicas: processes that hold the model; with two or more, one may die without anybody waiting for it.
        samples: noise draws averaged in a prediction.
        seed: fixes the draws: the same input gets the same answer.
        max_batch: examples in one forward pass.
        batch_wait_ms: how long a replica waits for more requests to fill a batch, milliseconds.
        max_examples: examples in one request.
        max_request_mb: bytes of one request's body, in 10^6.
        poll_seconds: between two looks at the registry's alias; 0 looks never again.
        timeout: seconds until a request that no replica has answered gets 503.
        trusted: functions `package.module:function` that a model's description may name to build it.
        verbose: show Ray's own messages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=0, le=65535)
    replicas: int = Field(default=2, ge=1)
    samples: int = Field(default=16, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0, lt=2**63)
    max_batch: int = Field(default=32, ge=1, le=4096)
    batch_wait_ms: float = Field(default=2.0, ge=0, le=10_000)
    max_examples: int = Field(default=256, ge=1)
    max_request_mb: float = Field(default=8.0, gt=0, le=1000)
    poll_seconds: float = Field(default=10.0, ge=0)
    timeout: float = Field(default=60.0, gt=0)
    trusted: tuple[str, ...] = ()
    verbose: bool = False

    @property
    def max_bytes(self) -> int:
        """Bytes that a request's body may have."""
        return int(self.max_request_mb * 1e6)
