import json
import math
import subprocess
import sys
import threading

import pytest

from crossreg.core.errors import UserError
from crossreg.services.tracking.spool import Spool


def test_importing_the_package_loads_neither_mlflow_nor_matplotlib_nor_ray():
    code = "import sys, crossreg.services.tracking; print([*{'mlflow', 'matplotlib', 'ray'} & set(sys.modules)])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.strip() == "[]"


def test_points_come_back_in_order_with_their_own_steps(tmp_path):
    spool = Spool(tmp_path)
    spool.append_metrics({"train/loss": 2.0, "regularizers/noise/00_conv1": 0.1}, 0)
    spool.append_metrics({"train/loss": math.nan}, 10)
    spool.append_metrics({"train/loss": math.inf, "regularizers/noise/00_conv1": 0.2}, 20)
    history = spool.history()
    assert history["regularizers/noise/00_conv1"] == ([0, 20], [0.1, 0.2])
    steps, values = history["train/loss"]
    assert steps == [0, 10, 20]
    assert values[0] == 2.0
    assert math.isnan(values[1])
    assert values[2] == math.inf


def test_steps_that_run_again_are_ignored_also_after_reopening(tmp_path):
    spool = Spool(tmp_path)
    for step in range(10):
        spool.append_metrics({"a": step}, step)
    spool.append_metrics({"a": -1.0, "b": 5.0}, 5)
    spool.close()
    spool = Spool(tmp_path)
    spool.append_metrics({"a": -1.0}, 9)
    spool.append_metrics({"a": 10.0}, 10)
    assert spool.history() == {"a": (list(range(11)), list(map(float, range(11)))), "b": ([5], [5.0])}


def test_a_half_written_line_is_dropped_and_can_be_recorded_again(tmp_path):
    spool = Spool(tmp_path)
    spool.append_metrics({"a": 1.0}, 1)
    spool.append_metrics({"a": 2.0}, 2)
    spool.close()
    path = tmp_path / "spool.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    spool = Spool(tmp_path)
    assert spool.history() == {"a": ([1], [1.0])}
    spool.append_metrics({"a": 2.0}, 2)
    assert spool.history() == {"a": ([1, 2], [1.0, 2.0])}
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_damaged_block_costs_only_its_own_lines(tmp_path, caplog):
    spool = Spool(tmp_path)
    for step in range(3):
        spool.append_metrics({"a": 1.0}, step)
    spool.close()
    path = tmp_path / "spool.jsonl"
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"\0" * (len(second) - 1) + b"\n" + third)
    assert Spool(tmp_path).history()["a"][0] == [0, 2]
    assert "unreadable line" in caplog.text


def test_an_offset_beyond_the_file_is_not_believed(tmp_path):
    (tmp_path / "offset").write_text("1000000")
    spool = Spool(tmp_path)
    spool.append_metrics({"a": 1.0}, 1)
    assert spool.sent == 0
    assert spool.waiting > 0


def test_two_writers_of_one_folder_are_refused(tmp_path):
    spool = Spool(tmp_path)
    with pytest.raises(UserError, match="another process records"):
        Spool(tmp_path)
    spool.close()
    Spool(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose a folder that can be written"):
        Spool(tmp_path / "file" / "spool")


@pytest.mark.parametrize("name", ["a[0]", "a//b", "/a", "../a", "a/../b", "", ".", "x" * 251, "a\n", "a@b"])
def test_names_that_the_store_would_refuse_are_refused_at_once(tmp_path, name):
    spool = Spool(tmp_path)
    with pytest.raises(ValueError, match="metric name"):
        spool.append_metrics({"good": 1.0, name: 1.0}, 0)
    assert spool.history() == {}


def test_many_threads_lose_and_mix_nothing(tmp_path):
    spool = Spool(tmp_path)

    def write(key):
        for step in range(300):
            spool.append_metrics({key: step}, step)

    threads = [threading.Thread(target=write, args=(f"thread/{index}",), daemon=True) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a thread still waits for the spool"
    assert spool.history() == {
        f"thread/{index}": (list(range(300)), list(map(float, range(300)))) for index in range(8)
    }


FULL_DISK = """
import resource, sys
from pathlib import Path
from crossreg.services.tracking.spool import Spool
spool, kept = Spool(Path(sys.argv[1])), 0
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    for step in range(100):
        spool.append_metrics({"a": 1.0}, step)
        kept += 1
except OSError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    spool.append_metrics({"a": 1.0}, kept)
    print(kept, spool.history()["a"][0] == list(range(kept + 1)))
"""


def test_a_full_disk_keeps_the_spool_whole_and_can_be_recovered_from(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert 0 < int(out[0]) < 100
    assert out[1] == "True"
    assert Spool(tmp_path).history()["a"][0] == list(range(int(out[0]) + 1))
