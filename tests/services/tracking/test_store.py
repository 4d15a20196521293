import contextlib
import os
import signal
import socket
import subprocess
import sys

import pytest

from crossreg.core.errors import UserError
from crossreg.services.tracking import store
from crossreg.services.tracking.ui import free_port

EIGHT = """
import multiprocessing, sys
from pathlib import Path
from crossreg.services.tracking import Tracker, TrackingConfig, store

def run(folder, index, barrier):
    barrier.wait(timeout=60)
    tracker = Tracker.start(TrackingConfig(uri=f"sqlite:///{folder}/new/mlflow.db"), experiment="race",
        run_name=f"run-{index}", params={"index": index}, tags={}, spool_dir=folder / str(index), system_interval=None)
    for step in range(50):
        tracker.record({"train/loss": step / 7}, step)
    sys.exit(0 if tracker.finish("FINISHED", timeout=60) else 1)

store.quiet_mlflow()  # imported once, so that the eight reach the store at the same moment
context = multiprocessing.get_context("fork")
barrier = context.Barrier(8)
processes = [context.Process(target=run, args=(Path(sys.argv[1]), index, barrier)) for index in range(8)]
for process in processes:
    process.start()
for process in processes:
    process.join(100)
sys.exit(max(process.exitcode for process in processes))
"""


@pytest.mark.slow
def test_eight_processes_start_on_one_fresh_database(tmp_path):
    command = [sys.executable, "-c", EIGHT, str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    client = store.connect(f"sqlite:///{tmp_path}/new/mlflow.db")
    experiment = client.get_experiment_by_name("race")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == [f"run-{index}" for index in range(8)]
    assert all(len(client.get_metric_history(run.info.run_id, "train/loss")) == 50 for run in runs)


def test_an_experiment_is_made_once_with_an_absolute_artifact_folder(client, store_uri):
    first = store.get_or_create_experiment(client, store_uri, "made-once")
    assert store.get_or_create_experiment(client, store_uri, "made-once") == first
    location = client.get_experiment(first).artifact_location
    assert location == (store.sqlite_path(store_uri).parent / "mlartifacts").as_uri()


def test_a_deleted_experiment_is_named(client, store_uri):
    identifier = store.get_or_create_experiment(client, store_uri, "gone")
    client.delete_experiment(identifier)
    with pytest.raises(UserError, match=f"'gone' was deleted.*--experiment-id {identifier}"):
        store.get_or_create_experiment(client, store_uri, "gone")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"check that {tmp_path}/file is a writable folder"):
        store.connect(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_a_folder_in_place_of_the_database_is_named(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        store.connect(f"sqlite:///{tmp_path}")


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database, and long enough to be read as one" * 100)
    with pytest.raises(UserError, match=r"mlflow\.db an SQLite database"):
        store.connect(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="is a writable folder"):
        store.connect(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_server_that_is_not_there_is_named_without_its_password():
    uri = f"http://ann:s3cret@127.0.0.1:{free_port('127.0.0.1')}"
    with pytest.raises(UserError, match="start the server, or give another URI") as refused:
        store.connect(uri)
    assert "ann:***@127.0.0.1" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_name_that_the_store_refuses_is_not_blamed_on_the_server(client, store_uri):
    with pytest.raises(UserError, match=r"it refused the request.*maximum length"):
        store.get_or_create_experiment(client, store_uri, "x" * 600)


def test_a_mistake_in_the_program_is_not_blamed_on_the_store(store_uri):
    with pytest.raises(ZeroDivisionError), store.asking(store_uri):
        raise ZeroDivisionError


def test_a_missing_database_driver_is_named():
    with pytest.raises(UserError, match="pip install pymysql"):
        store.connect("mysql+pymysql://ann:s3cret@127.0.0.1:1/runs")


def test_a_taken_port_is_left_alone():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) != port
    with pytest.raises(UserError, match="cannot listen"):
        free_port("192.0.2.1")
