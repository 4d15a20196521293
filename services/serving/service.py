"""The service between HTTP and the replicas: which model answers, requests sent again, new versions of an alias."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from crossreg.core.errors import UserError
from crossreg.prediction.export import Exported
from crossreg.services.serving.config import ServeConfig
from crossreg.services.serving.loading import load
from crossreg.services.serving.registry import Registry, Version
from crossreg.services.serving.replica import Handed
from crossreg.services.tracking.store import StoreError

__all__ = ["Active", "Service", "UnavailableError"]

_log = logging.getLogger(__name__)
_PAUSE = 0.1  # seconds before a request is sent again


class UnavailableError(RuntimeError):
    """No replica answers now; trying again later may help."""


@dataclass(frozen=True)
class Active:
    """The model that answers.

    Attributes:
        version: of the store.
        model: for what it takes and gives; the replicas predict.
        handed: how replicas get it.
        since: seconds since 1970.
    """

    version: Version
    model: Exported
    handed: Handed
    since: float


class Service:
    """Answers with the model that an alias stands for, and follows the alias; Ray runs.

    Args:
        registry: where models are.
        config: see `ServeConfig`.
        handle: of the deployment of replicas.
        version: of the first model.
        model: itself.
        files: what it was loaded from.

    Attributes:
        active: the model that answers new requests.
        trouble: why the newest version is not the one that answers; None while it is.
        retried: requests that were sent again since their replica was lost.
    """

    def __init__(
        self,
        registry: Registry,
        config: ServeConfig,
        handle: Any,
        version: Version,
        model: Exported,
        files: dict[str, bytes],
    ) -> None:
        self.config = config
        self.active = _activate(version, model, files)
        self.trouble: str | None = None
        self.retried = 0
        self._registry, self._handle = registry, handle
        self._refused: Version | None = None

    async def predict(self, x: np.ndarray, active: Active) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and spread for `[N, ...]` inputs; a request whose replica is lost goes to another.

        Predictions change nothing and repeat exactly, so sending one again is safe.

        Raises:
            UnavailableError: no replica answered in time, or too many requests wait.
        """
        try:
            async with asyncio.timeout(self.config.timeout):
                while True:
                    try:
                        mean, spread = await self._handle.remote(x, active.handed)
                        return mean, spread
                    except (RayActorError, ReplicaUnavailableError):
                        self.retried += 1
                        await asyncio.sleep(_PAUSE)
        except TimeoutError:
            raise UnavailableError(f"no replica answered within {self.config.timeout:g} s; try again later") from None
        except BackPressureError:
            raise UnavailableError("too many requests wait already; try again later") from None
        except DeploymentUnavailableError:
            raise UnavailableError("the replicas do not start; see the log of the service") from None

    async def try_out(self, active: Active) -> None:
        """Let a replica answer one example with a model."""
        dtype = np.int64 if active.model.integers else np.float32
        await self.predict(np.zeros((1, *active.model.input_shape), dtype), active)

    async def watch(self) -> None:
        """Follow the alias until cancelled; a URI that always stands for one model is not watched."""
        if "@" not in self.active.version.uri or not self.config.poll_seconds:
            return
        while True:
            await asyncio.sleep(self.config.poll_seconds)
            try:
                await self._look()
            except (UserError, UnavailableError) as error:
                self._complain(str(error))
            except Exception as error:
                _log.exception("looking for a new version failed")
                self._complain(f"{type(error).__name__}: {error}")

    async def _look(self) -> None:
        version = await asyncio.to_thread(self._registry.resolve, self.active.version.uri)
        if version == self.active.version:
            self.trouble = self._refused = None
            return
        if version == self._refused:
            return
        try:
            # beside the old one, which goes on answering
            files = await asyncio.to_thread(self._registry.read, version)
            model = (await asyncio.to_thread(load, files, self.config.max_batch, self.config.trusted)).exported
            fresh = _activate(version, model, files)
            await self.try_out(fresh)
        except StoreError:
            raise  # another look may succeed
        except Exception as error:
            # as it is it will not load the next time either
            self._refused = version
            cause = (
                str(error) if isinstance(error, UserError | UnavailableError) else f"{type(error).__name__}: {error}"
            )
            raise UserError(f"{version} is not served: {cause}. {self.active.version} goes on") from error
        _log.warning("%s now answers, after %s", version, self.active.version)
        self.active, self.trouble = fresh, None

    def _complain(self, message: str) -> None:
        if message != self.trouble:
            _log.warning("%s", message)
        self.trouble = message


def _activate(version: Version, model: Exported, files: dict[str, bytes]) -> Active:
    return Active(version, model, Handed(f"{version.model_id}/{version.version}", ray.put(files)), time.time())
