"""labs/clusters/train_gpt.sbatch, submitted to a real Slurm that this test starts: two nodes on one machine.

The test takes Slurm from the distribution's packages. It installs them itself where it may: as root, on Debian or Ubuntu,
with BIGMODEL_LAB_APT=1 in the environment, as .ci/run has it. Elsewhere it is skipped, and says why.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bigmodel_lab.train import RunRecord

ROOT = Path(__file__).resolve().parents[2]
TINY = "--steps 40 --layers 2 --width 16 --heads 2 --context 8 --batch 4 --vocab 280 --dtype float64".split()
DAEMONS = "munged", "slurmctld", "slurmd"

pytestmark = pytest.mark.timeout(400)


def require_slurm():
    if all(shutil.which(name) for name in (*DAEMONS, "sbatch")):
        if os.geteuid():
            pytest.skip("Slurm's daemons are started as root here")
        return
    if os.geteuid() or not shutil.which("apt-get") or os.environ.get("BIGMODEL_LAB_APT") != "1":
        pytest.skip(
            "Slurm is not installed: as root on Debian or Ubuntu, set BIGMODEL_LAB_APT=1 to let this test install it"
        )
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in ("update -qq", "install -qq -y --no-install-recommends slurm-wlm munge"):
        done = subprocess.run(
            ["apt-get", *command.split()], env=quiet, capture_output=True, text=True, timeout=240
        )
        if done.returncode:
            pytest.skip(f"apt-get {command} failed: {done.stderr.strip()[-300:]}")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A running Slurm of two nodes; gives the environment in which sbatch finds it, and its folder."""
    require_slurm()
    folder = tmp_path_factory.mktemp("slurm")
    for path in (folder, *folder.parents):  # munged wants to be reached by others
        if path.stat().st_uid == os.geteuid() and str(path) != "/" and "pytest" in str(path):
            path.chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    conf = (ROOT / "labs" / "clusters" / "slurm.conf").read_text("utf-8")
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(conf.replace("HOST", host).replace("FOLDER", str(folder)))
    (folder / "state").mkdir()
    env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    munge = f"--socket={folder}/munge.socket --key-file={folder}/munge.key --pid-file={folder}/munged.pid"
    munge += f" --log-file={folder}/munged.log --seed-file={folder}/munged.seed"
    started = [
        subprocess.Popen([shutil.which(name), *options], env=env)
        for name, options in (
            ("munged", ["--foreground", "--force", *munge.split()]),
            ("slurmctld", ["-D", "-i"]),
            ("slurmd", ["-D", "-N", "n1"]),
            ("slurmd", ["-D", "-N", "n2"]),
        )
    ]
    try:
        end = time.monotonic() + 30
        said = ""
        while time.monotonic() < end and said.split() != ["idle", "idle"]:
            time.sleep(0.3)
            said = ask(env, "sinfo", "--noheader", "--Node", "--format=%t", check=False)
        logs = "\n".join(p.read_text(errors="replace")[-1000:] for p in folder.glob("*.log"))
        assert said.split() == ["idle", "idle"], f"Slurm did not start: {said}\n{logs}"
        yield env, folder
    finally:
        for daemon in started[::-1]:
            daemon.terminate()
        for daemon in started[::-1]:
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def ask(env, *command, check=True) -> str:
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def submit(env, folder, *options) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # two nodes, one address: the real ones have names
    given = {"MASTER_ADDR": "127.0.0.1", "PET_LOCAL_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    given |= {"BIGMODEL_LAB": str(ROOT), "PATH": path}
    return ask(
        env | given,
        *[
            "sbatch",
            "--parsable",
            f"--chdir={folder}",
            ROOT / "labs" / "clusters" / "train_gpt.sbatch",
        ],
        *[*TINY, *options],
    ).strip()


def ended(env, job, folder, timeout_s=150) -> str:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        state = ask(env, "scontrol", "show", "job", job).split("JobState=")[1].split()[0]
        if state not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"):
            break
        time.sleep(0.5)
    said = (folder / f"train-gpt-{job}.out").read_text(errors="replace")
    assert state == "COMPLETED", f"{state}\n{said}"
    return said


def test_sbatch_trains_on_two_nodes(slurm, tmp_path):
    env, folder = slurm
    job = submit(env, folder, "--dp", 4, "--record", tmp_path / "run.json")
    assert f"job {job}, start 1: 2 nodes of 2 ranks" in ended(env, job, folder)
    alone = [
        sys.executable,
        ROOT / "labs" / "train_gpt.py",
        *TINY,
        "--record",
        tmp_path / "one.json",
    ]
    subprocess.run(alone, check=True, capture_output=True)
    one, four = (RunRecord.load(tmp_path / f"{name}.json") for name in ("one", "run"))
    assert four.layout.ranks == 4
    assert four.loss == pytest.approx(one.loss, abs=1e-9)


def test_a_job_whose_time_is_up_goes_back_into_the_queue_and_on_from_its_checkpoint(
    slurm, tmp_path
):
    """The signal is the one that --signal makes Slurm send two minutes before the end; here it comes at once."""
    env, folder = slurm
    checkpoints, path = tmp_path / "ck", tmp_path / "run.json"
    options = [
        "--steps",
        400,
        "--dp",
        4,
        "--every",
        20,
        "--checkpoint",
        checkpoints,
        "--record",
        path,
    ]
    job = submit(env, folder, *options)
    end = time.monotonic() + 90
    while not (checkpoints / "step-00000040").exists() and time.monotonic() < end:
        time.sleep(0.1)
    ask(env, "scancel", "--batch", "--signal=USR1", job)
    end = time.monotonic() + 60
    while (
        time.monotonic() < end
    ):  # Slurm holds a requeued job back for two minutes unless told otherwise
        if "JobState=PENDING" in ask(env, "scontrol", "show", "job", job):
            ask(env, "scontrol", "update", f"jobid={job}", "starttime=now")
            break
        time.sleep(0.5)
    said = ended(env, job, folder, 200)
    assert "the time is nearly up: back into the queue" in said
    assert "start 2: 2 nodes" in said
    assert "going on after step" in said
    assert len(RunRecord.load(path).loss) == 400
