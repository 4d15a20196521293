"""What crossreg costs, as ratios: `make bench`, or some parts of it, `python -m benchmarks noise steady`.

    noise        a training step with noise, a rho step, and a whole training to a plain one, in one process
    steady       steps a second: on Ray to torchrun, with tracking and checkpoints and without, two processes to one
    start        seconds until help, and until the first training step, beside the libraries alone
    busy         the share of the CPUs' time in which a population, and a comparison, train
    population   members of a population all at once by vmap, to actors

Each row says what its goal is. A goal that was met when `docs/performance.md` was written and is missed now ends the
command with exit code 1. The machine should do nothing else meanwhile; it takes half an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from crossreg.services.tracking.environment import environment_params, environment_tags

_SLACK = 1.03  # of a bound, before a met goal counts as lost


@dataclass(frozen=True)
class Row:
    """A measured ratio, share or time.

    Attributes:
        name: what of what.
        value: measured.
        goal: most that it may be, or least; None where there is none.
        least: whether the goal is the least.
        met: whether the goal was met when the docs were written, so that missing it is a loss.
        error: of the value, relative to it, beyond which it is hardly off; a goal missed by less is not lost.
    """

    name: str
    value: float
    goal: float | None = None
    least: bool = False
    met: bool = True
    error: float = 0.0

    @property
    def verdict(self) -> str:
        """Return "met", "not met", or "lost"; empty without a goal."""
        if self.goal is None:
            return ""
        if self._within(1.0):
            return "met"
        return "lost" if self.met and not self._within(_SLACK + self.error) else "not met"

    def _within(self, slack: float) -> bool:
        assert self.goal is not None
        return self.value * slack >= self.goal if self.least else self.value <= self.goal * slack

    def __str__(self) -> str:
        bound = "" if self.goal is None else f"{'>=' if self.least else '<='} {self.goal:g}"
        return f"| {self.name} | {self.value:.3g} | {bound} | {self.verdict} |"


def noise() -> Iterator[Row]:
    """One thread, batch 128, K = 3, a rho step every 30."""
    from benchmarks.rho_step import measure

    torch.set_num_threads(1)
    for model, rounds, goal in (("mlp", 15, 1.12), ("cnn", 9, 1.20), ("resnet18", 3, 1.15)):
        found = measure(model, rounds=rounds)
        plain = found["plain step"]
        for part in ("noisy step", "noisy step, drawn", "rho step", "rho step, K graphs"):
            yield Row(f"{model}: {part} / plain step", found[part] / plain)
        yield Row(f"{model}: rho step / its floor", found["rho step"] / found["floor of the rho step"])
        yield Row(f"{model}: whole training / plain", found["whole / plain"], goal)


def steady() -> Iterator[Row]:
    """Steps a second in processes of their own: two that take turns by the second, and by the run."""
    from benchmarks.in_turns import in_turns, median
    from benchmarks.steady import measure

    def beside(workers: int) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder:
            return median(in_turns(Path(folder), workers))

    here, error = beside(0)
    yield Row("steps/s, without tracking / with", 1 / here, 1.01, error=error)
    one, error = beside(1)
    yield Row("steps/s, Ray Train with one worker / bare", one, 0.97, least=True, error=error)
    two, error = beside(2)
    yield Row("steps/s, Ray Train with two workers / torchrun", two, 0.97, least=True, met=False, error=error)
    found = measure(rounds=3, say=lambda text: print(text, file=sys.stderr))
    yield Row("steps/s, without checkpoints / with", found["without checkpoints / with"])
    yield Row("steps/s of a process, two / one", found["two processes / one"])
    yield Row("share of a step that loading takes", found["loading share"], 0.02)


def start() -> Iterator[Row]:
    """Seconds."""
    from benchmarks import startup

    yield Row("seconds, crossreg --help", min(_seconds("crossreg.jobs.cli", "--help") for _ in range(5)), 0.5)
    arms = (startup.libraries_alone, startup.crossreg_here, startup.torchrun, startup.crossreg)
    found = startup.measure(arms, rounds=3)
    libraries, here, two, ray = (statistics.median(time for time, _ in costs) for costs in found)
    yield Row("seconds, the libraries alone, each taken for its first step", libraries)
    yield Row("seconds to the first step, crossreg train --workers 0", here, 6.0, met=False)
    ratio = statistics.median(one / alone for (one, _), (alone, _) in zip(found[1], found[0], strict=True))
    yield Row("the same / the libraries alone", ratio, 1.15)
    yield Row("seconds to the first step, torchrun, two processes", two)
    yield Row("seconds to the first step, crossreg train --workers 2", ray)


def busy() -> Iterator[Row]:
    """Shares, each in a Ray of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        _run("benchmarks.pbt_utilization", "--schedulers", "pbt,pbt-async", "--out", str(out))
        for one in json.loads(out.read_text()):
            if one["scheduler"] == "pbt":
                yield Row("pbt: workers busy / attainable", one["utilization"] / one["attainable"], 0.95, least=True)
            else:
                yield Row("pbt-async: workers busy", one["utilization"], 0.95, least=True)
    found = json.loads(_run("benchmarks.packing").strip().splitlines()[-1])
    yield Row("compare: CPUs busy, first interval to last", found["busy"], 0.85, least=True)


def population() -> Iterator[Row]:
    """Times as fast as two actors."""
    from benchmarks.population import MEMBERS, SCENES, measure

    for scene in SCENES:
        for sigma in (0.05, None):
            found = measure(*scene, sigma)
            name = f"{MEMBERS} {scene[0]} {'x'.join(map(str, scene[1]))}{'' if sigma else ', no noise'}"
            yield Row(f"{name}: by vmap, times as fast as two actors", found["actors"] / found["as one"])


PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "noise": noise,
    "steady": steady,
    "start": start,
    "busy": busy,
    "population": population,
}


def _run(module: str, *arguments: str) -> str:
    """Return what a module prints that runs in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", module, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def _seconds(module: str, *arguments: str) -> float:
    began = time.perf_counter()
    _run(module, *arguments)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all")
    chosen = parser.parse_args().parts or list(PARTS)
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    about = environment_params()
    commit = environment_tags().get("git.sha", "unknown")[:7]
    print(f"commit {commit}, torch {about['version.torch']}, {about['platform.cpu_count']} CPUs")
    print(f"load before: {os.getloadavg()[0]:.1f}\n\n| | measured | goal | |\n|---|---|---|---|")
    lost = []
    for name in chosen:
        for row in PARTS[name]():
            print(row, flush=True)
            if row.verdict == "lost":
                lost.append(row.name)
    if lost:
        print(f"\nlost what was met before: {'; '.join(lost)}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
