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
    maverick = "params --model llama3-70b --layers 48 --width 5120 --heads 40 --kv-heads 8 --hidden 16384 --vocab 202048 "
    maverick += "--experts 128 --experts-per-token 1 --expert-hidden 8192 --shared-experts 1 --expert-every 2"
    assert ask(capsys, *maverick.split())["value"] == pytest.approx(400e9, rel=0.003)  # model card
    falcon = "params --layers 32 --width 4544 --heads 71 --kv-heads 1 --vocab 65024 --biases none --positions-by rotary"
    assert ask(capsys, *falcon.split(), "--norms-per-layer", "1")["value"] == 6_921_720_704
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
        ("params --head-width 0", "--head-width must be finite and at least 1, got 0"),
        ("params --model GPT2", "Did you mean 'gpt2'"),
        ("params --layers -1B", "--layers must be finite and at least 1, got -1e+09"),
        ("params --no-such 3", "'--no-such' is no option: see bml plan params --help"),
        ("params --layer 3", "'--layer' is no option: did you mean --layers?"),
        ("memory --zero 4", "zero must be between 0 and 3, got 4"),
        ("memory --parameters -1", "--parameters must be a finite number above 0"),
        ("memory --parameters 7B --model llama2-7b", "give either --parameters or --model"),
        ("memory --parameters 7B --recompute full", "give either --parameters or --recompute"),
        ("memory --on tomorrow", "on must be a day, YYYY-MM-DD, got 'tomorrow'"),
        ("train --tokens 1T", "give either --parameters or --model"),
        ("train --parameters 8B --mfu 40", "write 40 % as 0.4"),
        ("train --parameters 8B --device h1000", "device must be one of"),
        ("train --parameters 8B --mfu 1.2", "--mfu must be a finite number above 0 and at most 1"),
        ("train --parameters 8B --sequence 4096", "--sequence goes with --model"),
        (
            "train --parameters 8B --devices 1T",
            "a failure every 0.000182 s leaves no time for work",
        ),
        ("train --parameters 8B --device b200", "--price must be given for b200"),
        ("traffic --batch 10 --dp 4", "batch=10 must be a multiple of dp x micro_batch = 4 x 1"),
        ("traffic --dp 0", "--dp must be finite and at least 1, got 0"),
        ("traffic --micro-batch 0", "--micro-batch must be finite and at least 1, got 0"),
        ("traffic --tp 7", "tp=7 must divide the 12 heads of gpt2"),
        ("traffic --tp 12", "tp=12 must be at most the 8 devices of a h100-sxm node"),
        ("traffic --pp 13", "pp=13 must be at most the 12 layers of gpt2"),
        ("optimal --budget -1", "--budget must be a finite number above 0, got -1"),
        (
            "optimal --budget 1M --mfu 2",
            "--mfu must be a finite number above 0 and at most 1, got 2",
        ),
        ("optimal --budget 1M --price 0", "--price must be a finite number above 0, got 0"),
        ("optimal --flops 1e21 --mfu 0.5", "--mfu goes with --budget"),
        ("serve --model bert-base", "--model must be one that writes tokens: bert-base only reads"),
        ("serve --tensor 5", "--tensor must divide the 12 heads of gpt2"),
        ("serve --tensor 16", "be at most the 8 devices of a h100-sxm node, got 16"),
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
    assert "--price must be given for b200" in capsys.readouterr().err
    assert (
        main(["plan", "train", "--parameters", "8B", "--device", "b200", "--price", "5", *ON]) == 0
    )


def test_failures_can_be_left_out(capsys):
    """Narayanan et al. (2021), arXiv:2104.04473, section 5.1: GPT-3 in 34 days at 140 TFLOP/s that count recomputation."""
    run = "train --parameters 175B --tokens 300B --device a100-sxm-80gb --devices 1024 --mfu 0.33654 --on 2026-11-22"
    alone = ask(capsys, *run.split(), "--failures", "none")
    assert alone["value"] == pytest.approx(33.9, abs=0.05)
    assert "goodput" not in alone["details"]
    assert ask(capsys, *run.split())["value"] > 34


@pytest.mark.parametrize("command", ["serve --model gpt2", "layout --model gpt2"])
def test_an_older_device_has_a_way_out(command, capsys):
    """A V100 has no bf16: the message says what it has, and the option is there."""
    old = [*command.split(), "--device", "v100-sxm-32gb", *ON]
    assert main(["plan", *old]) == 2
    assert "dtype of v100-sxm-32gb must be one of 'fp16', 'fp32'" in capsys.readouterr().err
    paid = ["--price", "1"] if "serve" in command else []
    assert ask(capsys, *old, "--dtype", "fp16", *paid)["value"] > 0


def test_traffic_and_layout_agree_on_the_wire(capsys):
    """dp x tp within a node is as fast as the node, though the stages are spread over the network."""
    small = "traffic --model llama2-7b --dp 2 --tp 4 --pp 4 --batch 8 --on 2026-11-22"
    got = ask(capsys, *small.split())["details"]
    assert got["time, data parallel"]["value"] == pytest.approx(
        got["data parallel"]["value"] / 450e9
    )
    assert got["time, pipeline parallel"]["value"] == pytest.approx(
        got["pipeline parallel"]["value"] / 50e9
    )
