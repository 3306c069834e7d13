"""labs/clusters/train_gpt.yaml against Kubernetes' own schemas, and its parts against each other. No cluster is at hand."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import psutil
import pytest
import yaml

from bigmodel_lab.train import RunRecord

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / "labs" / "clusters" / "train_gpt.yaml"


@pytest.fixture
def parts():
    return {part["kind"]: part for part in yaml.safe_load_all(MANIFEST.read_text("utf-8"))}


@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
def test_every_part_follows_the_schema(version, parts):
    assert parts.keys() == {"Service", "PersistentVolumeClaim", "Job"}
    for part in parts.values():
        kubernetes_validate.validate(part, version, strict=True)
    parts["Job"]["spec"]["template"]["spec"]["containers"][0]["imgae"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError, match="'imgae' was unexpected"):
        kubernetes_validate.validate(parts["Job"], version, strict=True)


def test_the_parts_fit_together(parts):
    job, service = parts["Job"], parts["Service"]
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {e["name"]: e.get("value") for e in container["env"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"]
    host, port = env["PET_RDZV_ENDPOINT"].split(":")
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert int(port) == service["spec"]["ports"][0]["port"]
    nodes = int(env["PET_NNODES"])
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == nodes
    assert f"--dp={nodes * int(env['PET_NPROC_PER_NODE'])}" in container["args"]
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert {m["name"] for m in container["volumeMounts"]} == volumes.keys()
    claim = volumes["runs"]["persistentVolumeClaim"]["claimName"]
    assert claim == parts["PersistentVolumeClaim"]["metadata"]["name"]


def test_a_pod_that_is_lost_and_replaced_goes_on_from_the_checkpoint(parts, tmp_path):
    """The container's command and environment as in the manifest, but both pods are on this machine, with one rank each."""
    (container,) = parts["Job"]["spec"]["template"]["spec"]["containers"]
    env = os.environ | {e["name"]: e["value"] for e in container["env"]}
    env |= {"PET_RDZV_ENDPOINT": f"127.0.0.1:{free_port()}", "GLOO_SOCKET_IFNAME": "lo"}
    env |= {"PET_LOCAL_ADDR": "127.0.0.1", "PET_NPROC_PER_NODE": "1"}
    tiny = "--dp=0 --layers=2 --width=16 --heads=2 --context=8 --batch=4 --vocab=280 --steps=400".split()
    torchrun = [sys.executable, "-m", "torch.distributed.run", *container["command"][1:]]
    args = [a.replace("/runs", str(tmp_path)) for a in container["args"]]

    def pod(number):
        # On one machine torchrun cannot tell by the address which of the two is to hold the store.
        conf = f"{env['PET_RDZV_CONF']},is_host={'false' if number else 'true'}"
        with (tmp_path / "log").open("a") as log:
            how = dict(env=env | {"PET_RDZV_CONF": conf}, stdout=log, stderr=subprocess.STDOUT)
            return psutil.Popen([*torchrun, *args, *tiny], cwd=ROOT, **how)

    pods = [pod(0), pod(1)]
    try:
        end = time.monotonic() + 90
        while not (tmp_path / "a" / "step-00000020").exists() and time.monotonic() < end:
            time.sleep(0.02)
        kill(pods.pop())
        pods.append(pod(1))
        ended = [p.wait(150) for p in pods]
    finally:
        for p in pods:
            kill(p)
    said = (tmp_path / "log").read_text("utf-8")
    assert ended == [0, 0], said
    assert said.count("going on after step") == 1
    assert len(RunRecord.load(tmp_path / "a.json").loss) == 400


def kill(pod: psutil.Popen) -> None:
    """End a pod as a node that fails ends it: all of its processes, without a word."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for p in [*pod.children(recursive=True), pod]:
            p.kill()
        pod.wait()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
