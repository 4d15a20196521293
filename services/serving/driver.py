"""One service from start to end, seen from the process the user started.

HTTP is answered in this process and not by Ray Serve's proxy: the proxy answers 500 to requests that were with a
replica when it died, while here they are sent to another one.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from crossreg.core.errors import UserError
from crossreg.inputs import Table
from crossreg.prediction.export import Exported
from crossreg.services.serving.config import ServeConfig
from crossreg.services.serving.loading import load
from crossreg.services.serving.registry import Registry, Version
from crossreg.services.tracking import TrackingConfig
from crossreg.services.training.config import Placement
from crossreg.services.training.runtime import available_cpus, check_placement, start_ray

__all__ = ["Served", "serve"]

_STOP_SECONDS = 10


def _row(model: Exported) -> dict[str, Any] | None:
    return {one.name: one.example for one in model.inputs.columns} if isinstance(model.inputs, Table) else None


@dataclass(frozen=True)
class Served:
    """What a running service tells its user.

    Attributes:
        url: where it listens.
        version: what it serves.
        input_shape: of one example.
        images: whether it takes image files.
        row: a row of the table that it takes; None where it takes arrays.
    """

    url: str
    version: Version
    input_shape: tuple[int, ...]
    images: bool
    row: dict[str, Any] | None


def serve(
    uri: str,
    config: ServeConfig,
    tracking: TrackingConfig,
    *,
    say: Callable[[str], None],
    ready: Callable[[Served], None],
) -> None:
    """Serve a model until Ctrl-C or SIGTERM.

    Args:
        uri: of the model; see `crossreg.services.serving.registry`.
        config: see `ServeConfig`.
        tracking: the MLflow store that holds the model.
        say: is told what happens while it starts.
        ready: is called once it answers.

    Raises:
        UserError: Ray Serve is not installed, the address is taken, or the model cannot be found or loaded.
    """
    _require()
    replicas = config.replicas or min(2, available_cpus())
    config = config.model_copy(update={"replicas": replicas})
    placement = Placement(workers=replicas, verbose=config.verbose)
    check_placement(placement)
    with closing(_listen(config.host, config.port)) as listener, _sigterm_as_interrupt():
        try:
            say(f"looking for {uri}")
            registry = Registry(tracking)
            version = registry.resolve(uri)
            files = registry.read(version)
            model = load(files, config.max_batch, config.trusted).exported
            say(f"loaded {version}; starting Ray, replicas: {replicas} (about 15 s)")
            with _replicas(config, placement) as (handle, states):
                from crossreg.services.serving.service import Service

                service = Service(registry, config, handle, version, model, files)
                host, port = listener.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                served = Served(f"http://{shown}:{port}", version, model.stored_shape, model.images, _row(model))
                _run(service, states, listener, lambda: ready(served))
        except KeyboardInterrupt:
            pass
        say("stopped")


def _require() -> None:
    # by looking, not importing: Ray reads its environment when it is first imported, see `start_ray`
    missing = [name for name in ("ray", "fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'serving needs Ray Serve, but {missing[0]} is not installed: pip install "crossreg[serve]"')


def _listen(host: str, port: int) -> socket.socket:
    """Bind before anything is started, so that a taken port is told at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); give a free --port (0 takes any) and an "
            "address of this machine"
        ) from None
    return listener


@contextmanager
def _replicas(config: ServeConfig, placement: Placement) -> Iterator[tuple[Any, Callable[[], dict[str, int]]]]:
    """Start Ray where needed and the replicas; yield their handle and what counts them."""
    import ray

    joined = ray.is_initialized()
    try:
        start_ray(placement)
        from ray import serve as ray_serve

        from crossreg.services.serving.replica import Replica

        if not config.verbose:
            logging.getLogger("ray.serve").setLevel(logging.ERROR)
        # no proxy: see the head of this file
        ray_serve.start(proxy_location="Disabled")
        replica: Any = Replica  # which the decorator made a deployment
        deployment = replica.options(
            num_replicas=config.replicas,
            max_ongoing_requests=4 * config.max_batch,
            max_queued_requests=64 * config.max_batch,
            health_check_period_s=2,
            health_check_timeout_s=30,
            graceful_shutdown_timeout_s=_STOP_SECONDS,
            graceful_shutdown_wait_loop_s=0.2,
            ray_actor_options={"num_cpus": 1},
        )
        # others may serve on the same cluster
        name = f"crossreg-serve-{uuid.uuid4().hex[:8]}"
        handle = ray_serve.run(deployment.bind(config), name=name, route_prefix=None)

        def states() -> dict[str, int]:
            application = ray_serve.status().applications.get(name)
            found = application.deployments.values() if application else ()
            return {str(getattr(k, "value", k)): v for each in found for k, v in each.replica_states.items()}

        try:
            yield handle, states
        finally:
            if "RAY_ADDRESS" in os.environ:  # on somebody's cluster; one of our own ends as a whole
                ray_serve.delete(name)
    finally:
        if not joined and ray.is_initialized():
            ray.shutdown()


def _run(
    service: Any, states: Callable[[], dict[str, int]], listener: socket.socket, ready: Callable[[], None]
) -> None:
    import uvicorn

    from crossreg.services.serving.app import build_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await service.try_out(service.active)
            await super().startup(sockets)
            ready()

    config = uvicorn.Config(
        build_app(service, states),
        log_level="info" if service.config.verbose else "warning",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=_STOP_SECONDS,
        # connections beyond these are told 503 instead of filling the memory with bodies
        limit_concurrency=1024,
        server_header=False,
    )
    # again: Ray has put a handler of its own in its place
    with _sigterm_as_interrupt():
        Server(config).run(sockets=[listener])


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the service as Ctrl-C does, replicas and Ray included."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
