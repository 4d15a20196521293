"""A training whose machines have their clocks set while it runs: `make faults`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crossreg.services.cluster import LocalCluster
from tests.services.cluster.faults import note
from tests.services.cluster.running import ARGUMENTS, PATIENT, STEPS, History, Run, assert_same, done_again, said

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`clock.c`, built."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"], check=True, timeout=60)
    return library


@pytest.fixture
def clocks(cluster: LocalCluster, straight: History, library: Path, tmp_path: Path) -> dict[str, Path]:
    """Ray's machines with clocks that can be set: a file for each holds by how many seconds its clock is wrong.

    They are started anew for each test: on a Ray node whose clock had been set back, the next training did not start.
    """
    files = {name: tmp_path / name for name in ("ray-head", "node-1", "node-2")}
    for name in files:  # Ray refuses to start a head while a node of the last one runs
        cluster.kill(name)
    for name, file in files.items():
        set_clock(file, 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LD_PRELOAD", str(library))
            patch.setenv("CROSSREG_CLOCK", str(file))
            cluster.start(name)
    return files


def set_clock(file: Path, seconds: int) -> None:
    with file.open("r+b" if file.exists() else "wb") as out:
        out.write(seconds.to_bytes(8, sys.byteorder, signed=True))


@pytest.mark.parametrize("hour", [3600, -3600], ids=["ahead", "back"])
@pytest.mark.parametrize("machine", ["ray-head", "node-1", "all"])
def test_a_clock_jumps_by_an_hour(
    machine: str,
    hour: int,
    cluster: LocalCluster,
    clocks: dict[str, Path],
    straight: History,
) -> None:
    run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS), *PATIENT)
    run.wait_for(300)
    before, began = run.step(), time.monotonic()
    for name, file in clocks.items():
        set_clock(file, hour if machine in (name, "all") else 0)
    run.wait_for(max(before, run.step()))
    seconds = time.monotonic() - began
    log = run.finish()
    assert_same(run.history(), straight)
    which = "every clock" if machine == "all" else f"the clock of {machine}"
    note(f"{which} jumps by {hour} s", again=done_again(run, before), seconds=seconds, said=said(log, "changed"))
