"""A network of network namespaces: every node a host of its own, joined by a bridge of this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from crossreg.core.errors import UserError

__all__ = ["Namespaces"]


class Namespaces:
    """The network of one cluster: this machine is host 1 of it, node n is host 10 + n.

    Args:
        folder: of the cluster; the network's names and addresses follow from it.
    """

    def __init__(self, folder: Path) -> None:
        digest = hashlib.sha256(str(folder).encode()).digest()
        self.name = f"xr{digest[:4].hex()}"
        self.network = f"10.{200 + digest[4] % 50}.{digest[5]}"

    def open(self) -> str:
        """Make the bridge where it is missing and return this machine's address on it.

        Raises:
            UserError: not root, or no `ip`.
        """
        if os.getuid() != 0 or shutil.which("ip") is None:
            raise UserError("network namespaces need root and `ip` (`apt-get install iproute2`); leave out --isolated")
        if not Path(f"/sys/class/net/{self.name}").exists():
            _ip("link", "add", self.name, "type", "bridge")
            _ip("address", "add", f"{self.network}.1/24", "dev", self.name)
            _ip("link", "set", self.name, "up")
        return f"{self.network}.1"

    def add(self, number: int) -> tuple[str, str]:
        """Return name and address of a node's namespace, made where it is missing."""
        name, link, address = f"{self.name}-{number}", f"{self.name}v{number}", f"{self.network}.{10 + number}"
        if not Path(f"/run/netns/{name}").exists():
            _ip("netns", "add", name)
            _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", link, "master", self.name, "up")
            _ip("-netns", name, "address", "add", f"{address}/24", "dev", "eth0")
            for interface in ("eth0", "lo"):
                _ip("-netns", name, "link", "set", interface, "up")
        return name, address

    def connect(self, number: int, connected: bool) -> None:
        """Plug a node's cable in, or pull it."""
        _ip("link", "set", f"{self.name}v{number}", "up" if connected else "down")

    def close(self) -> None:
        """Take the network away."""
        for path in Path("/run/netns").glob(f"{self.name}-*"):
            _ip("netns", "delete", path.name)
        if Path(f"/sys/class/net/{self.name}").exists():
            _ip("link", "delete", self.name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")
