"""labs/clusters/train_gpt.yaml against Kubernetes' own schemas, and its parts against each other. No cluster is at hand."""

import os
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

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
    assert env["PET_MASTER_ADDR"] == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert int(env["PET_MASTER_PORT"]) == service["spec"]["ports"][0]["port"]
    nodes = int(env["PET_NNODES"])
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == nodes
    assert f"--dp={nodes * int(env['PET_NPROC_PER_NODE'])}" in container["args"]
    volumes = {v["name"]: v for v in pod["volumes"]}
    assert {m["name"] for m in container["volumeMounts"]} == volumes.keys()
    claim = volumes["runs"]["persistentVolumeClaim"]["claimName"]
    assert claim == parts["PersistentVolumeClaim"]["metadata"]["name"]


def test_the_command_runs_with_the_environment_that_the_manifest_gives(parts, tmp_path):
    """As in the pods, but both on this machine, and with a smaller model."""
    (container,) = parts["Job"]["spec"]["template"]["spec"]["containers"]
    env = {e["name"]: e.get("value") for e in container["env"]}
    env |= {"PET_MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    tiny = "--layers=2 --width=16 --heads=2 --context=8 --batch=4 --vocab=280 --steps=3".split()
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    args = [a.replace("/runs", str(tmp_path)) for a in container["args"]]
    pods = [
        subprocess.Popen(
            [*torchrun, *container["command"][1:], *args, *tiny],
            env=os.environ | env | {"PET_NODE_RANK": str(node)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for node in range(2)
    ]
    said = [pod.communicate(timeout=120)[0] for pod in pods]
    assert [pod.returncode for pod in pods] == [0, 0], said
    assert (tmp_path / "a.json").exists()
