"""A disk of its own for a test, that can be full or broken."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.waiting import wait_for

__all__ = ["Disk"]

SECONDS = 60
"""That any command for a disk may take."""


class Disk:
    """A disk of 64 MiB: an ext4 file system of its own (root only).

    Args:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._image = folder, folder.with_suffix(".img")
        self._filler = folder / "filler"

    def __enter__(self) -> Path:
        if os.getuid() != 0 or not Path("/dev/loop-control").exists():
            pytest.skip("mounting a file system needs root and loop devices")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as image:
            image.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(self._image)], check=True, timeout=SECONDS)
        self._mount()
        return self.folder

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True, timeout=SECONDS)

    def _mount(self) -> None:
        options = "loop,errors=remount-ro"
        subprocess.run(["mount", "-o", options, str(self._image), str(self.folder)], check=True, timeout=SECONDS)

    def full(self) -> None:
        """Leave no byte of room."""
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as out:
            while True:
                out.write(b"0" * 4096)

    def empty(self) -> None:
        """Make room again."""
        self._filler.unlink()

    def read_only(self) -> None:
        """Let the kernel find an error, after which it writes nothing more."""
        source = subprocess.run(
            ["findmnt", "--noheadings", "--output", "SOURCE", str(self.folder)],
            check=True,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        device = Path(source.stdout.strip()).name
        Path("/sys/fs/ext4", device, "trigger_fs_error").write_text("a test")

    def repaired(self) -> None:
        """Check it and mount it anew, as after a reboot."""
        command = ["umount", str(self.folder)]
        wait_for(
            lambda: subprocess.run(command, timeout=SECONDS).returncode == 0,
            f"unmounting of {self.folder}, which somebody uses", SECONDS, every=1,
        )  # fmt: skip
        subprocess.run(["e2fsck", "-y", str(self._image)], stdout=subprocess.DEVNULL, timeout=SECONDS)
        self._mount()
