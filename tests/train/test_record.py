"""RunRecord: round trip of any record, every check's message, atomic writing, and nothing private in the file."""

import dataclasses
import getpass
import json
import math
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_lab.train import Layout, RunRecord

GOOD = dict(
    model="MLP 784-128-10",
    parameters=101_770,
    data="mnist",
    samples=256,
    seed=0,
    loss=(2.3, 1.9),
    compute_s=(0.01, 0.02),
    communication_s=(0.001, 0.001),
    sent_bytes={"all_reduce": (814_160, 814_160)},
    layout=Layout(dp=2),
)


def record(**changes) -> RunRecord:
    return RunRecord(**GOOD | changes)


names = st.text(min_size=1, max_size=12)
seconds = st.floats(0, 1e9)
any_float = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def records(draw) -> RunRecord:
    ways = st.integers(1, 4)
    layout = Layout(draw(ways), draw(ways), draw(ways), draw(st.integers(0, 3)))
    steps = draw(st.integers(0, 5))

    def curve(x):
        return draw(st.lists(x, min_size=steps, max_size=steps))

    by_rank = st.lists(st.integers(0, 2**63), min_size=layout.ranks, max_size=layout.ranks)
    return RunRecord(
        model=draw(names),
        parameters=draw(st.integers(0, 10**13)),
        data=draw(names),
        samples=draw(st.integers(0, 10**15)),
        seed=draw(st.integers(0, 2**32)),
        loss=curve(any_float),
        compute_s=curve(seconds),
        communication_s=curve(seconds),
        sent_bytes=draw(st.dictionaries(names, by_rank, max_size=3)),
        layout=layout,
        dtype=draw(names),
        tokens=draw(st.none() | st.integers(0, 10**15)),
        memory_bytes=draw(st.dictionaries(names, st.integers(0, 2**50), max_size=3)),
        scores=draw(st.dictionaries(names, any_float, max_size=3)),
        machine=draw(st.dictionaries(names, names | st.integers(0, 2**60), max_size=3)),
        versions=draw(st.dictionaries(names, names, max_size=3)),
    )


@settings(deadline=None)
@given(records())
def test_what_is_saved_is_what_is_loaded(tmp_path_factory, r):
    path = r.save(tmp_path_factory.getbasetemp() / "run.json")
    again = RunRecord.load(path)
    assert repr(again) == repr(r)  # repr, because NaN differs from itself
    json.loads(
        path.read_text(encoding="utf-8"), parse_constant=pytest.fail
    )  # strict JSON: no NaN, no Infinity


def test_defaults_describe_this_machine_and_nobody_in_particular(tmp_path):
    path = record().save(tmp_path / "run.json")
    again = RunRecord.load(path)
    assert again == record()
    assert set(again.machine) == {"cpu", "cores", "memory_bytes", "system"}
    assert again.machine["cores"] >= 1
    assert again.machine["memory_bytes"] > 2**28
    assert {"bigmodel_lab", "python", "numpy", "torch"} <= set(again.versions)
    words = path.read_text(encoding="utf-8").replace("/", " / ").split()
    private = {
        getpass.getuser(),
        socket.gethostname(),
        str(Path.home()),
        os.getcwd(),
        str(tmp_path),
    }
    assert not [w for w in words if w.strip('",') in private]
    assert "/" not in path.read_text(encoding="utf-8")  # no path of any kind


def test_every_measured_number_has_its_unit_in_the_file(tmp_path):
    content = json.loads(record().save(tmp_path / "run.json").read_text(encoding="utf-8"))
    units = {name: x["unit"] for name, x in content.items() if isinstance(x, dict) and "unit" in x}
    assert units == {
        "parameters": "parameter",
        "samples": "sample",
        "tokens": "token",
        "loss": "nat",
        "compute_s": "s",
        "communication_s": "s",
        "sent_bytes": "byte",
        "memory_bytes": "byte",
        "scores": "1",
    }
    assert content["communication_s"]["value"] == [0.001, 0.001]
    assert (content["kind"], content["schema"]) == ("bigmodel-lab run", 1)


def test_derived_values():
    r = record()
    assert r.steps == 2
    assert r.communication_share == pytest.approx(0.002 / 0.032)
    assert math.isnan(record(loss=(), compute_s=(), communication_s=()).communication_share)
    assert Layout(dp=2, tp=2, pp=3, zero=1).ranks == 12


def test_frozen_copied_and_picklable():
    r = record()
    with pytest.raises(dataclasses.FrozenInstanceError):
        r.seed = 1
    mine = {"all_reduce": [1, 2]}
    r = record(sent_bytes=mine)
    mine["all_reduce"][0] = 9
    assert r.sent_bytes == {"all_reduce": (1, 2)}
    assert pickle.loads(pickle.dumps(r)) == r


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(model=""), "TypeError: model must be a text, not empty, got ''."),
        (dict(dtype=None), "TypeError: dtype must be a text, not empty, got None."),
        (dict(parameters=1.5), "TypeError: parameters must be a whole number, got 1.5."),
        (dict(samples=-1), "ValueError: samples must be at least 0, got -1."),
        (dict(seed=True), "TypeError: seed must be a whole number, got True."),
        (dict(tokens="7"), "TypeError: tokens must be a whole number, got '7'."),
        (dict(loss=("1", 2.0)), "TypeError: loss must be a number, got '1'."),
        (dict(loss=(1.0,)), "ValueError: compute_s must have one entry a step, as loss has: 1, got 2."),
        (dict(communication_s=(1.0,)), "ValueError: communication_s must have one entry a step, as loss has: 2, got 1."),
        (dict(compute_s=(0.1, -0.1)), "ValueError: compute_s must be between 0 and 1000000000.0 s, got -0.1."),
        (dict(compute_s=(0.1, math.nan)), "ValueError: compute_s must be between 0 and 1000000000.0 s, got nan."),
        (dict(sent_bytes={"all_reduce": (1,)}), "ValueError: sent_bytes['all_reduce'] must have one entry a rank: 2, got 1."),
        (dict(sent_bytes={"all_reduce": (1, 0.5)}), "TypeError: sent_bytes['all_reduce'] must be a whole number, got 0.5."),
        (dict(memory_bytes={"peak": -1}), "ValueError: memory_bytes['peak'] must be at least 0, got -1."),
        (dict(layout={"dp": 2}), "TypeError: layout must be a Layout, such as Layout(dp=2), got {'dp': 2}."),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_is_named(change, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        record(**change)
    assert f"{caught.type.__name__}: {caught.value}" == message


def test_a_layout_that_cannot_be_is_named():
    with pytest.raises(ValueError, match=r"zero must be between 0 and 3, got 4"):
        Layout(zero=4)
    with pytest.raises(ValueError, match=r"tp must be between 1 and .*, got 0"):
        Layout(tp=0)
    with pytest.raises(TypeError, match=r"dp must be a whole number, got 2.0"):
        Layout(dp=2.0)


def edited(path: Path, change) -> Path:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(kind="other"), 'run.json is no run record: it does not say "kind": "bigmodel-lab run".'),
        (lambda c: c.update(schema=2), "run.json has schema 2 and this bigmodel-lab reads schema 1: "),
        (lambda c: c.pop("schema"), "run.json has schema None and this bigmodel-lab reads schema 1: "),
        (lambda c: c.pop("loss"), "run.json is damaged: fields missing or unknown: loss."),
        (lambda c: c.update(colour="red"), "run.json is damaged: fields missing or unknown: colour."),
        (lambda c: c["loss"].pop("unit"), 'run.json is damaged: loss has no unit: it must be {"value": ..., "unit": "nat"}.'),
        (lambda c: c.update(compute_s=[1, 2]), "run.json is damaged: compute_s has no unit: "),
        (lambda c: c["compute_s"].update(unit="ms"), "run.json is damaged: compute_s must be in s, got 'ms'."),
        (lambda c: c["samples"].update(value=-3), "run.json is damaged: samples must be at least 0, got -3."),
        (lambda c: c["sent_bytes"].update(value=[1]), "run.json is damaged: "),
        (lambda c: c["loss"].update(value="nan"), "run.json is damaged: "),
        (lambda c: c.update(layout={"dp": 2, "cp": 2}), "run.json is damaged: "),
        (lambda c: c.update(layout=None), "run.json is damaged: "),
    ],
)  # fmt: skip
def test_a_file_that_is_not_a_record_is_told_apart(tmp_path, change, message):
    path = edited(record().save(tmp_path / "run.json"), change)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the message is compared below)
        RunRecord.load(path)
    assert str(caught.value).startswith(message)


def test_no_prefix_of_a_file_loads(tmp_path):
    whole = record(machine={}, versions={}).save(tmp_path / "run.json").read_bytes()
    torn = tmp_path / "torn.json"
    for n in range(len(whole.rstrip())):
        torn.write_bytes(whole[:n])
        with pytest.raises(ValueError, match=r"torn.json is damaged: .* Repeat its run"):
            RunRecord.load(torn)
    torn.write_bytes(whole.replace(b"M", b"\xff", 1))
    with pytest.raises(ValueError, match=r"torn.json is damaged"):
        RunRecord.load(torn)
    for text in ("[]", "3", "null"):
        torn.write_text(text)
        with pytest.raises(ValueError, match=r"torn.json is no run record"):
            RunRecord.load(torn)


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = record().save(tmp_path / "run.json")
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        record(seed=1).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_needs_no_torch():
    code = "import sys, bigmodel_lab.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
