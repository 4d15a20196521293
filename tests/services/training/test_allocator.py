"""Memory that a training step frees is there for the next one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource, threading, torch
from crossreg.services.training.allocator import keep_freed_memory
if {keep}:
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def steps():
    x = torch.ones(1_000_000)
    for _ in range(3):
        (x + 1) * (x + 2)
    before = faults()
    for _ in range(20):
        (x + 1) * (x + 2)
    print((faults() - before) // 20)
thread = threading.Thread(target=steps)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's")
def test_blocks_of_megabytes_are_not_asked_of_the_system_at_every_step() -> None:
    given, kept = (
        int(subprocess.run([sys.executable, "-c", _FAULTS.format(keep=keep)], capture_output=True, check=True).stdout)
        for keep in (False, True)
    )
    assert given > 1000  # three results of 4 MB in pages of 4 KiB
    assert kept < 100
