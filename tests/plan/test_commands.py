"""bml plan: every example in a help is run and compared; JSON answers carry the library's values and units."""

import json

import pytest
from command_examples import check_example, examples

from bigmodel_lab.cli import main
from bigmodel_lab.plan import MODELS, count_parameters
from bigmodel_lab.plan.commands import COMMANDS

ON = ["--on", "2026-11-22"]


CASES = examples(COMMANDS)


@pytest.mark.parametrize(("name", "arguments", "printed"), CASES, ids=lambda x: None)
def test_examples(name, arguments, printed, capsys):
    check_example("plan", name, arguments, printed, capsys)


def test_each_command_has_an_example():
    assert {name for name, *_ in CASES} == set(COMMANDS)
    assert {"params", "memory", "train", "traffic", "optimal", "kv", "serve"} <= set(COMMANDS)


def ask(capsys, *arguments):
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "value", "unit"),
    [
        ("params --model gpt2-xl", 1_557_611_200, "parameter"),
        ("memory --parameters 7.5B --zero 3 --replicas 64", 1.875e9, "byte"),
        ("train --parameters 175B --tokens 300B --device a100-sxm-80gb --devices 1024 --mfu 0.4487 --checkpoint-s 1e-6 --restart-s 0 --on 2026-11-22", 25.43, "day"),
        ("traffic --model gpt2 --dp 2 --itemsize 4 --on 2026-11-22", 4 * 124_439_808, "byte"),
        ("optimal --flops 5.76e23 --law chinchilla-rounded", 32.19e9, "parameter"),
        ("kv --model llama2-70b --positions 1000 --batch 2", 655_360_000, "byte"),
        ("serve --model llama3-8b --rate 50 --per-token 0.03 --on 2026-11-22", 3, "device"),
    ],
)  # fmt: skip
def test_json(arguments, value, unit, capsys):
    got = ask(capsys, *arguments.split())
    assert got["value"] == pytest.approx(value, rel=1e-3)
    assert got["unit"] == unit
    assert got["command"] == "plan " + arguments.split()[0]


def test_a_shape_of_ones_own(capsys):
    """Mixtral from Llama's flags, GPT-2 medium from GPT-2's, BLOOM's embedding from its own."""
    moe = "params --model llama2-7b --kv-heads 8 --hidden 14336 --experts 8 --experts-per-token 2 --expert-hidden 14336"
    assert ask(capsys, *moe.split())["value"] == count_parameters(MODELS["mixtral-8x7b"]).total
    medium = "params --layers 24 --width 1024 --heads 16"
    assert ask(capsys, *medium.split())["value"] == 354_823_168
    bloom = "params --layers 70 --width 14336 --heads 112 --vocab 250880 --positions-by alibi --embedding-norm"
    assert ask(capsys, *bloom.split())["value"] == 176_247_271_424
    fewer = "params --model mixtral-8x7b --experts 4"
    assert ask(capsys, *fewer.split())["value"] < 30e9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("params --model gtp2", "Did you mean 'gpt2'"),
        ("params --width 770", "n_heads=12 does not divide width=770"),
        (
            "params --model llama2-7b --width 2048",
            "--hidden must be given with --width: llama2-7b has 11008",
        ),
        ("params --model llama3-8b --heads 16", "--kv-heads must be given with --heads"),
        ("params --experts 8", "--experts, --experts-per-token and --expert-hidden go together"),
        ("memory --zero 4", "zero must be between 0 and 3, got 4"),
        ("memory --parameters -1", "parameters must be finite and at least 0"),
        ("train --tokens 1T", "give either --parameters or --model"),
        ("train --parameters 8B --mfu 40", "write 40 % as 0.4"),
        ("train --parameters 8B --device h1000", "device must be one of"),
        ("traffic --batch 10 --dp 4", "--batch 10 must be a multiple of --dp x --micro-batch = 4"),
        ("optimal", "give one of --flops, --budget and --parameters, got 0"),
        ("optimal --parameters 1B --law kaplan", "needs a law of Chinchilla's form"),
        ("kv --positions -4", "positions must be finite and at least 0"),
        ("serve --model llama2-70b", "llama2-70b with one sequence of 700 tokens needs"),
        ("layout --model llama3.1-405b", "does not fit on 8 x h100-sxm"),
    ],
)
def test_refused(arguments, message, capsys):
    assert main(["plan", *arguments.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_stale_price_warns_and_answers(capsys):
    got = main(["plan", "train", "--parameters", "8B", "--on", "2027-07-01"])
    captured = capsys.readouterr()
    assert got == 0
    assert "warning: row 'h100-sxm' of plan/tables/prices.csv is from 2026-05-01" in captured.err
    assert captured.out.startswith("time")


def test_a_long_context_is_not_what_training_sees(capsys):
    """arXiv:2407.21783: Llama 3.1 405B took 3.8e25 FLOP for 15.6T tokens, mostly in sequences of 8192, not 131,072."""
    run = "train --model llama3.1-405b --tokens 15.6T --devices 16384 --on 2026-11-22"
    default = ask(capsys, *run.split())["details"]["compute"]["value"]
    assert default == ask(capsys, *run.split(), "--sequence", "8192")["details"]["compute"]["value"]
    assert default == pytest.approx(3.8e25, rel=0.09)  # 6ND leaves attention's core out
    assert ask(capsys, *run.split(), "--sequence", "131072")["details"]["compute"]["value"] > 8e25


def test_no_price_is_said(capsys):
    assert main(["plan", "train", "--parameters", "8B", "--device", "b200", *ON]) == 2
    assert "device with a price must be one of" in capsys.readouterr().err
    assert (
        main(["plan", "train", "--parameters", "8B", "--device", "b200", "--price", "5", *ON]) == 0
    )
