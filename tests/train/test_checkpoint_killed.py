"""SIGKILL while a checkpoint is written: real processes, killed at every moment that matters and at random ones.

One program imports torch, and forks a process for each try; it checks afterwards what that one left.
"""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

PROGRAM = """
import json, os, random, shutil, signal, sys, time, warnings
from pathlib import Path
import torch
torch.set_num_threads(1)
from bigmodel_lab.train import load_checkpoint, save_checkpoint

def save(folder, step, size):
    w = torch.full((size,), float(step))
    save_checkpoint(folder, step, {"w": w}, {"m": w + 0.5, "step": step}, keep=2)

def look(folder):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_checkpoint(folder)
    whole = (found.model["w"] == found.step).all() and (found.state["m"] == found.step + 0.5).all()
    assert whole and found.state["step"] == found.step
    said = " ".join(str(c.message) for c in caught)
    left = [p.name for p in folder.iterdir() if p.name.startswith(".")]
    left += [p.name for p in folder.glob("step-*") if p.name > found.path.name]
    assert all(name in said for name in left), (left, said)
    for path in folder.glob("step-*"):          # whatever bears a checkpoint's name is all there
        assert len(list(path.iterdir())) == 4, path
    return found.step, sorted(left), said

def in_child(task):
    pid = os.fork()
    if pid == 0:
        try:
            task()
        finally:
            os._exit(0)
    return pid

def kill_at(call):
    \"\"\"Make the call number `call` to the system, of those that change the disk, the last one: it is not made.\"\"\"
    count = iter(range(10_000))
    def guarded(f):
        def g(*args, **options):
            if next(count) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return f(*args, **options)
        return g
    for name in ("open", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir"):
        setattr(os, name, guarded(getattr(os, name)))
"""

EVERY_MOMENT = """
results, base = [], Path(sys.argv[1])
save(base / "first", 1, 1000)
save(base / "first", 2, 1000)
for call in range(100):
    folder = base / "run"
    shutil.copytree(base / "first", folder)
    pid = in_child(lambda: (kill_at(call), save(folder, 3, 1000)))
    _, status = os.waitpid(pid, 0)
    step, left, said = look(folder)
    save(folder, 4, 1000)                       # the next one clears away what was left
    again = look(folder)
    results.append([os.WIFSIGNALED(status), step, left, said, again[0], sorted(p.name for p in folder.iterdir())])
    shutil.rmtree(folder)
    if not os.WIFSIGNALED(status):
        break
print(json.dumps(results))
"""

AT_RANDOM = """
results, base = [], Path(sys.argv[1])
for attempt in range(6):
    folder = base / str(attempt)
    told, tell = os.pipe()
    def many(first):
        for step in range(first, 10_000):
            save(folder, step, 1_000_000)       # 8 MB
            os.write(tell, step.to_bytes(4, "big"))
    pid = in_child(lambda: many(1))
    last = int.from_bytes(os.read(told, 4), "big")
    time.sleep(random.uniform(0, 0.25))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.set_blocking(told, False)
    try:
        while word := os.read(told, 4):
            last = int.from_bytes(word, "big")
    except BlockingIOError:
        pass
    step, left, said = look(folder)
    results.append([last, step, left])
print(json.dumps(results))
"""


def run(program, folder):
    command = [sys.executable, "-W", "error", "-c", PROGRAM + program, str(folder)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_killed_before_every_call_that_changes_the_disk(tmp_path):
    *killed, (not_killed, *_) = results = run(EVERY_MOMENT, tmp_path)
    assert not not_killed
    assert (
        len(killed) > 15
    )  # a directory, four files, their renaming, the pointer, the removal of an old one
    steps = [step for _, step, *_ in results]
    assert steps == sorted(
        steps
    )  # the old one until the pointer is replaced, the new one from then on
    assert set(steps) == {2, 3}
    assert any(
        "its writing, or its deletion, never finished" in said for _, _, _, said, *_ in killed
    )
    assert any("step-00000003: newer, but" in said for _, _, _, said, *_ in killed)
    for _, _, _, _, again, names in results:
        assert again == 4
        assert names[0] == "latest"  # nothing whose name begins with a dot
        assert len(names) == 3  # and two checkpoints


def test_killed_at_random_moments(tmp_path):
    for last, step, _ in run(AT_RANDOM, tmp_path):
        assert step in (last, last + 1)  # what was said to be written is there
