"""Every command of docker/ exists and takes its options; health checks ask what servers answer; parts are one."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from crossreg.core.errors import UserError
from crossreg.services.cluster import ClusterConfig, LocalCluster, Secrets, database, parts, prepare
from tests.docker.files import DOCKER, ONE_SHOTS, SECRET, SERVICES, pods, resources

# programs of the images that are not ours, as far as they are called
FOREIGN = {"postgres": {"pg_isready"}, "artifact-store": {"/usr/bin/weed", "wget"}}


@cache
def click_command(program: str) -> click.Command:
    """Return the command line of one of the image's programs: the thing itself, not its help text."""
    if program == "ray":
        from ray.scripts.scripts import cli

        return cli
    if program == "mlflow":
        from mlflow.cli import cli as mlflow

        return mlflow
    assert program == "crossreg.jobs.train", program
    from crossreg.jobs.train import app

    return typer.main.get_command(app)


@cache
def weed_options() -> frozenset[str]:
    weed = Path(sys.executable).parent / "weed"
    told = subprocess.run([weed, "help", "server"], capture_output=True, text=True, timeout=60)
    return frozenset(re.findall(r"^  -(\S+)", told.stdout + told.stderr, re.MULTILINE))


def check_click(program: str, arguments: list[str]) -> None:
    """Parse arguments as the program would, without doing what they say."""
    command = click_command(program)
    context = click.Context(command)
    while isinstance(command, click.Group):
        _, command, arguments = command.resolve_command(context, arguments)
        assert command is not None
    try:
        command.make_context(program, arguments)
    except click.ClickException as error:
        pytest.fail(f"{program}: {error.format_message()}")


def check_weed(arguments: list[str]) -> None:
    assert arguments.pop(0) == "-logtostderr=true"
    assert arguments.pop(0) == "server"
    unknown = {argument.lstrip("-").partition("=")[0] for argument in arguments} - weed_options()
    assert not unknown


def check_python(arguments: list[str]) -> None:
    if arguments[0] == "-c":
        (code,) = arguments[1:]
        compile(code, "healthcheck", "exec")
        return
    assert arguments[0] == "-m"
    if arguments[1] == "crossreg.services.cluster.prepare":
        prepare.parser().parse_args(arguments[2:])
    else:
        check_click(arguments[1], arguments[2:])


def check_command(command: list[str]) -> None:
    program, *arguments = command
    if program == "/usr/bin/weed":
        check_weed(arguments)
    elif program == "python":
        check_python(arguments)
    else:
        check_click(program, arguments)


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "postgres"])  # it runs what its image does
def test_every_command_exists_and_takes_its_options(name: str) -> None:
    service = SERVICES[name]
    command = [*service.get("entrypoint", []), *service["command"]]
    assert all(isinstance(word, str) for word in command), "no shell between"
    check_command(command)


def test_the_jobs_entrypoint_exists_and_takes_its_options() -> None:
    check_command(shlex.split(resources()["RayJob"]["spec"]["entrypoint"]))


@pytest.mark.parametrize("name", pods())
def test_rays_start_parameters_exist(name: str) -> None:
    check_click("ray", ["start", *(f"--{key}={value}" for key, value in pods()[name]["rayStartParams"].items())])


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONE_SHOTS))
def test_every_server_has_a_health_check_of_a_program_in_its_image(name: str) -> None:
    how, program, *arguments = SERVICES[name]["healthcheck"]["test"]
    assert how == "CMD"
    if name in FOREIGN:
        assert program in FOREIGN[name]
    else:
        assert program == "python"
        check_python(arguments)


def test_health_checks_ask_what_the_servers_answer_without_a_password() -> None:
    from mlflow.server.security_utils import HEALTH_ENDPOINTS
    from ray.dashboard import http_server_head
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

    asked = {
        name: re.search(r"http://127.0.0.1:(\d+)(/[\w/]+)", " ".join(SERVICES[name]["healthcheck"]["test"])).groups()  # type: ignore[union-attr]
        for name in ("artifact-store", "mlflow", "ray-head", "ray-worker")
    }
    assert asked["mlflow"][1] in HEALTH_ENDPOINTS
    assert asked["ray-worker"][1] in PUBLIC_EXACT_PATHS
    assert f'"{asked["ray-head"][1]}",' in Path(http_server_head.__file__).read_text()
    assert asked["artifact-store"] == ("8333", "/healthz")
    for name, option in [("mlflow", "--port"), ("ray-head", "--dashboard-port"), ("artifact-store", "-s3.port")]:
        assert f"{option}={asked[name][0]}" in SERVICES[name]["command"]
    assert f"--dashboard-agent-listen-port={asked['ray-worker'][0]}" in SERVICES["ray-worker"]["command"]


def test_postgres_health_check_takes_its_options() -> None:
    try:
        folder = database.binaries()
    except UserError:
        pytest.skip("PostgreSQL is not installed")
    program, *arguments = SERVICES["postgres"]["healthcheck"]["test"][1:]
    told = subprocess.run([folder / program, "--help"], capture_output=True, text=True, timeout=30).stdout
    assert all(f"{argument.partition('=')[0]}=" in told for argument in arguments)


def options(command: list[str]) -> dict[str, str]:
    """Return options and values, `--port 1` and `--port=1` alike; a flag's value is empty."""
    found: dict[str, str] = {}
    words = [part for word in command for part in (word.split("=", 1) if word.startswith("-") else [word])]
    for word, following in zip(words, [*words[1:], "-"], strict=True):
        if word.startswith("-"):
            found[word] = "" if following.startswith("-") else following
    return found


@pytest.fixture
def processes(tmp_path: Path) -> dict[str, parts.Part]:
    secrets, store = Secrets(), dict.fromkeys(["s3", "master", "volume", "filer", "s3_grpc"], 1)
    environment = parts.s3_environment("http://artifact-store:8333", secrets)
    ports = dict.fromkeys(["gcs", "dashboard", "client", "agent", "metrics"], 1)
    uri = "postgresql+psycopg2://crossreg@postgres:5432"
    return {
        "artifact-store": parts.artifact_store("weed", tmp_path, "h", store, secrets),
        "mlflow": parts.mlflow_server(tmp_path, "h", 5000, uri, "s3://mlflow", "http://artifact-store:8333", secrets),
        "ray-head": parts.ray_head("h", ports, tmp_path, environment),
        "ray-worker": parts.ray_worker("node-1", "ray-head:6379", "h", 2, ports, tmp_path, environment),
    }


# given to a process because it shares its machine with the others, and to a container because it does not
PLACE = {
    "artifact-store": {"-logtostderr", "-dir", "-ip", "-ip.bind", "-s3.ip.bind", "-s3.config", "-s3.port"},
    "mlflow": {"--host", "--port", "--allowed-hosts"},
    "ray-head": {"--node-ip-address", "--temp-dir", "--dashboard-host", "--port", "--ray-client-server-port"},
    "ray-worker": {"--node-ip-address", "--temp-dir", "--address"},
}


@pytest.mark.parametrize("name", PLACE)
def test_services_are_the_parts_of_the_process_cluster(name: str, processes: dict[str, parts.Part]) -> None:
    def compared(command: list[str]) -> dict[str, Any]:
        chosen = {key: value for key, value in options(command).items() if key not in PLACE[name]}
        # ports differ; that they are given does not
        return {
            key: "a port" if key.endswith("-port") else value
            for key, value in chosen.items()
            if not re.fullmatch(r"-(s3|master|volume|filer)\.port(\.grpc)?|-m", key)
        }

    assert compared(SERVICES[name]["command"]) == compared(processes[name].command)
    ours = SERVICES[name]["environment"]
    secret = {key for key in ours if SECRET.search(key)}
    for key, value in processes[name].environment.items():
        if name == "mlflow" and key == "MLFLOW_AUTH_CONFIG_PATH":
            continue
        assert key in ours, key
        assert key in secret or ours[key] == value, key


def test_mlflows_users_are_configured_as_in_the_process_cluster(processes: dict[str, parts.Part]) -> None:
    def read(path: Path) -> dict[str, str]:
        config = configparser.ConfigParser()
        config.read(path)
        return dict(config["mlflow"])

    written = read(Path(processes["mlflow"].environment["MLFLOW_AUTH_CONFIG_PATH"]))
    assert read(DOCKER / "mlflow-auth.ini") == written
    ours = SERVICES["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]
    assert {ours.rpartition("/")[2], written["database_uri"].rpartition("/")[2]} == set(prepare.DATABASES)
    assert ours in SERVICES["tables"]["command"]


@pytest.mark.parametrize("name", ["ray-head", "ray-worker", *pods()])
def test_nodes_have_the_environment_of_the_process_clusters(name: str, tmp_path: Path) -> None:
    some_ports = {"mlflow": {"http": 1}, "artifact-store": {"s3": 1}, "ray-head": {"dashboard": 1}}
    cluster = LocalCluster(tmp_path, ClusterConfig(), ports=some_ports)
    agent = {"agent": 1, "metrics": 1}
    wanted = parts.ray_worker("n", "h:1", "h", 1, agent, tmp_path, cluster._node_environment()).environment
    if name in SERVICES:
        ours = SERVICES[name]["environment"]
        # the image has the PATH, and the token is no file
        expected = wanted.keys() - {"PATH", "RAY_AUTH_TOKEN_PATH"} | {"RAY_AUTH_TOKEN"}
        assert ours.keys() - {"RAY_JOB_STOP_WAIT_TIME_S"} == expected
    else:
        # the rest comes from KubeRay and from the Secret
        ours = {one["name"]: one["value"] for one in pods()[name]["template"]["spec"]["containers"][0]["env"]}
    for variable in ("CROSSREG_STORAGE_PATH", "RAY_ENABLE_UV_RUN_RUNTIME_ENV"):
        assert ours[variable] == wanted[variable]
    assert ours["XDG_STATE_HOME"].startswith("/var/lib/crossreg/")
    assert ours.get("RAY_JOB_STOP_WAIT_TIME_S", "60") == "60"
    assert ("RAY_JOB_STOP_WAIT_TIME_S" in ours) is name.endswith("head")
