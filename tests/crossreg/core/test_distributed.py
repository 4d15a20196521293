from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]

# Noise of the whole batch, of which each rank takes its rows: then two processes and one draw the same numbers.
COMMON = """
import sys, torch, torch.nn.functional as F
import torch.distributed as dist
import crossreg.regularizer, crossreg.regularizers.noise, crossreg.training.trainer
from crossreg import Batches, CrossRegularizer, EvaluationPlan, Trainer, inject_noise, process_group, sigmas
from crossreg.core.distributed import data_parallel, gather_rows, rank, world_size
from tests.crossreg.conftest import small_model
torch.set_num_threads(1)

def shared_noise(x):
    rows = torch.randn(len(x) * world_size(), *x.shape[1:], dtype=x.dtype)
    return rows[rank() * len(x):(rank() + 1) * len(x)]

def data(rows, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 8, generator=g, dtype=torch.float64)
    return x, x[:, :3].argmax(1)
"""

EQUAL = (
    COMMON
    + """
crossreg.regularizers.noise.standard_normal_like = shared_noise
# one random stream for all ranks, so that `shared_noise` cuts the same draw
crossreg.regularizer.rank = lambda: 0
crossreg.training.trainer.rank = lambda: 0
crossreg.regularizer._separate_noise_of_ranks = lambda device: None
def main():
    with process_group("gloo"):
        model = inject_noise(small_model("layer", torch.float64), "unit", initial_sigma=0.5)
        model[0].spare = torch.nn.Linear(2, 2).double()  # plays no part
        train, reg = Batches(*data(64, 1), 16), Batches(*data(32, 2), 16)
        # ranks whose rows weigh unequally
        held_out = torch.nn.CrossEntropyLoss(torch.tensor([1.0, 3.0, 0.5]).double(), ignore_index=2)
        test = Batches(*data(30, 3), 16, shuffle=False)
        regularizer = CrossRegularizer(model, held_out, reg, interval=3, samples=3)
        optimizer = torch.optim.SGD(regularizer.theta, lr=0.1)
        trainer = Trainer(model, "classification", optimizer, train, regularizer=regularizer, steps=20,
                          evaluation=EvaluationPlan(splits={"test": test}))
        trainer.fit()
        if dist.is_initialized():
            dist.barrier()
        if not dist.is_initialized() or dist.get_rank() == 0:
            torch.save({"model": model.state_dict(), "loss": trainer.latest["train/loss"],
                        "accuracy": trainer.latest["test/accuracy"], "rows": len(trainer.evaluated["test"].targets),
                        "targets": trainer.evaluated["test"].targets}, sys.argv[1])
main()
"""
)

DIFFERENT = (
    COMMON
    + """
def main():
    with process_group("gloo"):
        torch.manual_seed(0)  # ranks seeded alike by a careless user
        model = inject_noise(small_model("layer"), "unit", initial_sigma=0.5)
        x, y = data(24, 1)
        loader = [(x[i:i + 9].float(), y[i:i + 9]) for i in range(0, 24, 9)]  # rows that two ranks cannot halve
        model[1].noise.rho.data += rank()  # ranks that start apart are brought together
        regularizer = CrossRegularizer(model, "classification", loader, interval=1)
        wrapped = data_parallel(model)
        assert isinstance(wrapped, torch.nn.parallel.DistributedDataParallel)
        optimizer = torch.optim.AdamW(regularizer.theta, lr=1e-2)
        messages = []
        original = dist.all_reduce
        def counted(*args, **kwargs):
            messages.append(1)
            return original(*args, **kwargs)
        noise = []
        for step in range(12):
            F.cross_entropy(wrapped(x.float()), y).backward()
            optimizer.step()
            optimizer.zero_grad()
            crossreg.regularizer.dist.all_reduce = counted
            regularizer.step()
            crossreg.regularizer.dist.all_reduce = original
        with torch.no_grad():
            output = model(x.float())[None]
        outputs = gather_rows(output)
        rho = gather_rows(torch.cat([p.reshape(-1) for p in regularizer.rho.values()])[None])
        assert not torch.equal(outputs[0], outputs[1]), "ranks drew the same noise"
        assert torch.equal(rho[0], rho[1]), "sigma differs between ranks"
        assert len(messages) == 12, messages
        uneven = gather_rows(torch.full((rank() + 1, 2), rank()))
        assert uneven.tolist() == [[0, 0], [1, 1], [1, 1]], uneven
        weights = gather_rows(torch.cat([p.reshape(-1) for p in regularizer.theta])[None])
        assert torch.equal(weights[0], weights[1])
        if rank() == 0:
            print("moved", bool((rho[0] != rho[0][0]).any()), float(rho.std()))
main()
"""
)

COURSE = (
    COMMON
    + """
import io
from crossreg.models import Ensemble
from crossreg.training.course import Course, CourseSettings
def trainer():
    torch.manual_seed(0)
    model = Ensemble([small_model("batch") for _ in range(2)], "classification")
    x, y = data(200, 1)
    batches = lambda rows, size, **o: Batches(x[rows].float(), y[rows], size, **o)
    train, reg = batches(slice(0, 100), 20, drop_last=True), batches(slice(100, 200), 50, shuffle=False)
    return Trainer(model, "classification", torch.optim.AdamW(model.parameters(), lr=1e-2), train, steps=200,
                   evaluation=EvaluationPlan(splits={"reg": reg, "test": reg}),
                   course=Course(batches(slice(0, 200), 20, drop_last=True),
                                 settings=CourseSettings(first_steps=5, least_steps=10, overrun=1.5)))
def state(run):
    values = [v.double().reshape(-1) for v in run.model.state_dict().values()]
    return torch.cat([torch.tensor([run.step, run.course.kept_step, run.course.ended_at]).double(), *values])
def main():
    with process_group("gloo"):
        whole = trainer()
        whole.fit()
        both = gather_rows(state(whole)[None])
        assert torch.equal(both[0], both[1]), "ranks differ"
        assert 0 < whole.course.kept_step <= whole.course.ended_at < whole.step
        for cut in (7, whole.course.ended_at, whole.course.ended_at + 2):
            first = trainer()
            first.start()
            first.advance(cut)
            file = io.BytesIO()
            torch.save(first.state_dict(), file)
            file.seek(0)
            again = trainer()
            again.load_state_dict(torch.load(file, weights_only=True))
            again.fit()
            assert torch.equal(state(again), state(whole)), cut
        if rank() == 0:
            print("found", whole.step, whole.course.kept_step)
main()
"""
)


def launch(code: str, tmp_path: Path, processes: int, *arguments: str) -> str:
    """Run a script in so many processes.

    What it does stands in a function, so that nothing holds the process group when the interpreter ends: threads of
    Gloo that are still busy then may abort the process.
    """
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code) + "\nimport gc\ngc.collect()\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *arguments]
    if processes > 1:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        command[1:1] = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-addr",
                        "127.0.0.1", "--master-port", str(port)]  # fmt: skip
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
def test_two_processes_at_half_batch_equal_one_at_full_batch(tmp_path: Path) -> None:
    for processes in (1, 2):
        launch(EQUAL, tmp_path, processes, str(tmp_path / f"{processes}.pt"))
    one, two = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (1, 2))
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-9)
    assert one["rows"] == two["rows"] == 30
    assert sorted(one["targets"].tolist()) == sorted(two["targets"].tolist())


@pytest.mark.slow
def test_ranks_draw_different_noise_and_keep_sigma_bit_identical_in_one_message(tmp_path: Path) -> None:
    assert "moved True" in launch(DIFFERENT, tmp_path, 2)


@pytest.mark.thorough
def test_ranks_find_the_same_length_and_go_on_from_a_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    assert "found" in launch(COURSE, tmp_path, 2)
