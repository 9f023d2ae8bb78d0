"""The example deployment: its files say what the code needs, and agree with each other."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deerflow_replica import AppConfig
from deerflow_replica.gateway import create_app
from deerflow_replica.replica import open_replica
from gateway.serving import IN_MEMORY, in_process

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parents[2] / "examples" / "deploy"
SERVERS = {"POSTGRES_URL": "postgresql://postgres:5432/postgres", "REDIS_URL": "redis://valkey:6379/0"}
AFTER_THE_DRAIN = 2 + 5 + 5 + 30  # seconds: last events, last requests, runs that do not end, memories


def test_the_configuration_is_read_without_a_warning() -> None:
    config = AppConfig.from_file(FOLDER / "config.yaml", env=SERVERS, strict=True)
    assert config.warnings == ()
    assert config.database.postgres_url == SERVERS["POSTGRES_URL"]
    assert config.stream_bridge.redis_url == SERVERS["REDIS_URL"]


async def test_the_agent_answers_whoever_says_who_he_is() -> None:
    agent: Any = runpy.run_path(str(FOLDER / "agent.py"))
    async with open_replica(AppConfig.from_mapping(IN_MEMORY)) as replica:
        app = create_app(replica, {"agent": agent["make_agent"]}, authenticate=agent["user_of"])
        async with in_process(app) as nobody, in_process(app, "ada") as ada:
            assert (await nobody.post("/threads", json={})).status_code == 401
            thread_id = (await ada.post("/threads", json={})).json()["thread_id"]
            body = {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": "Who answers?"}]}}
            answer = (await ada.post(f"/threads/{thread_id}/runs/wait", json=body)).json()
    assert [message["type"] for message in answer["messages"]] == ["human", "ai"]


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return loaded


def test_compose_waits_for_what_is_healthy_and_lets_replicas_drain() -> None:
    services = compose()["services"]
    gateways = {name: service for name, service in services.items() if name.startswith("gateway")}
    assert len(gateways) == 2
    for service in gateways.values():
        assert set(service["environment"]) == set(SERVERS)
        assert seconds(service["stop_grace_period"]) > drain_seconds() + AFTER_THE_DRAIN
    for service in services.values():
        assert service["healthcheck"]["test"]
        for name, condition in service.get("depends_on", {}).items():
            assert name in services
            assert condition == {"condition": "service_healthy"}


def test_nginx_knows_the_gateways_of_compose() -> None:
    asked = re.findall(r"server (gateway-\w+):(\d+);", (FOLDER / "nginx.conf").read_text())
    services = compose()["services"]
    assert asked == [(name, "2024") for name in services if name.startswith("gateway")]
    assert "./nginx.conf:/etc/nginx/nginx.conf:ro" in services["nginx"]["volumes"]


def test_the_image_has_what_its_command_names() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    root = FOLDER.parents[1]
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        assert all((root / source).exists() for source in line.split()[:-1])
    [entry] = re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)
    [command] = re.findall(r"^CMD (.+)$", text, re.MULTILINE)
    assert json.loads(entry)[:2] == ["deerflow-replica", "serve"]
    for target in re.findall(r"agent:(\w+)", command):
        assert f"def {target}(" in (FOLDER / "agent.py").read_text()
    assert json.loads(command)[-1] == "config.yaml"


def test_docker_compose_accepts_the_file() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker compose to read the example with")
    command = [docker, "compose", "-f", str(FOLDER / "compose.yaml"), "config", "--quiet"]
    passwords = {"POSTGRES_PASSWORD": "one", "VALKEY_PASSWORD": "two"}
    read = subprocess.run(command, env=os.environ | passwords, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    assert not read.stderr


def manifests() -> dict[str, Any]:
    loaded = list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))
    assert len({manifest["kind"] for manifest in loaded}) == len(loaded)
    return {manifest["kind"]: manifest for manifest in loaded}


def test_kubernetes_probes_drains_and_finds_its_pods() -> None:
    found = manifests()
    pod = found["Deployment"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    probes = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert probes == {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/live"}
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pod["spec"]["terminationGracePeriodSeconds"] > pause + drain_seconds() + AFTER_THE_DRAIN
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]


def test_kubernetes_names_what_it_defines() -> None:
    found = manifests()
    pod = found["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": found["Secret"]["metadata"]["name"]}}]
    assert set(found["Secret"]["stringData"]) == set(SERVERS)
    named = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    assert named == {found["ConfigMap"]["metadata"]["name"]}
    backend = found["Ingress"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == found["Service"]["metadata"]["name"]
    own = {option["name"]: "gateway-7d9f" for option in container["env"]}
    text = found["ConfigMap"]["data"]["config.yaml"]
    assert yaml.safe_load(text) == yaml.safe_load((FOLDER / "config.yaml").read_text())
    assert list(own) == ["DEERFLOW_REPLICA__REPLICA__ID"]
    assert AppConfig.from_file(FOLDER / "config.yaml", env=SERVERS | own).replica.id == "gateway-7d9f"


def drain_seconds() -> float:
    return AppConfig.from_file(FOLDER / "config.yaml", env=SERVERS).gateway.drain_timeout_seconds


def seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text[:-1])
