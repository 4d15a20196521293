"""Gloo, PyTorch's collectives on CPUs, between machines whose own name leads to loopback.

Gloo tells its peers the address that the machine's name stands for. On many machines that is 127.0.0.1 or 127.0.1.1
(Debian's installer writes that into `/etc/hosts`), where peers on other machines look for it in vain.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig

__all__ = ["GlooConfig"]


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    """Ray Train's, preceded by the choice of a network interface where there are several machines."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Set up the process group of all workers."""
        if len(set(worker_group.execute(ray.util.get_node_ip_address))) > 1:
            worker_group.execute(choose_interface)
        super().on_start(worker_group, backend_config)


class GlooConfig(TorchConfig):
    """Ray Train's `TorchConfig` for workers on any machines; `GLOO_SOCKET_IFNAME` in a node's environment wins."""

    @property
    def backend_cls(self) -> type[_Backend]:
        """What sets up the process group."""
        return _Backend


def choose_interface() -> None:
    """Let Gloo use this node's network interface in place of loopback."""
    try:
        named = socket.gethostbyname(socket.gethostname())
    except OSError:
        named = "127.0.0.1"  # where Gloo goes, too
    if "GLOO_SOCKET_IFNAME" in os.environ or not ipaddress.ip_address(named).is_loopback:
        return
    here = ray.util.get_node_ip_address()
    for interface, addresses in psutil.net_if_addrs().items():
        if any(address.address == here for address in addresses):
            os.environ["GLOO_SOCKET_IFNAME"] = interface
