"""bml econ: every example in a help is run and compared; JSON answers carry the library's values and units."""

import json

import pytest
from command_examples import check_example, examples

from bigmodel_lab.cli import main
from bigmodel_lab.econ.commands import COMMANDS

CASES = examples(COMMANDS)


@pytest.mark.parametrize(("name", "arguments", "printed"), CASES, ids=lambda x: None)
def test_examples(name, arguments, printed, capsys):
    check_example("econ", name, arguments, printed, capsys)


def test_each_command_has_an_example():
    assert (
        {name for name, *_ in CASES}
        == set(COMMANDS)
        == {"captable", "clv", "bass", "price", "runway"}
    )


def ask(capsys, *arguments):
    assert main(["econ", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "value", "unit"),
    [
        ("captable --founders Ada=6M,Ben=4M --pre-money 8M --raise-usd 2M", 0.8, "dimensionless"),
        ("captable --safes a=1M@5M,b=500k@@0.2 --pre-money 8M --raise-usd 2M --pool 0.1", 0.8 * 0.7 - 0.0625, "dimensionless"),
        ("clv --arpa 100 --gross-margin 0.8 --churn 0.02", 4000, "USD / customer"),
        ("bass --p 0.03 --q 0.38 --market 1 --years 10", 0.8128, "customer"),
        ("price --cost 2 --gross-margin 0.75", 8, "USD / megatoken"),
        ("runway --cash 1M --fixed 95k --new-customers 0 --unsure 0 --paths 10", 11, "month"),
    ],
)  # fmt: skip
def test_json(arguments, value, unit, capsys):
    got = ask(capsys, *arguments.split())
    assert got["value"] == pytest.approx(value, rel=1e-3)
    assert got["unit"] == unit
    assert got["command"] == "econ " + arguments.split()[0]


def test_a_runway_without_end_is_null(capsys):
    got = ask(capsys, *"runway --fixed 0 --new-customers 0 --paths 10".split())
    assert got["value"] is None
    assert "more than nine of ten companies have cash after all 60 months" in got["notes"][0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("clv --gross-margin 60", "bml econ clv: gross_margin must be between 0 and 1, got 60: write 60 % as 0.6"),
        ("captable --founders Ada", "--founders must read name=number"),
        ("captable --founders Ada=x", "bml econ captable: --founders, 'Ada': 'x' is no number: write 7e9"),
        ("captable --founders a=1M,a=2M", "with different names, got 'a=2M'"),
        ("captable --founders x=", "--founders, 'x': '' is no number"),
        ("captable --safes a=1M@5M@x", "--safes, 'a': 'x' is no number"),
        ("captable --safes a=1M@5M@0.2@9", "--safes, 'a': must read USD@cap or USD@cap@discount, got '1M@5M@0.2@9'"),
        ("captable --safes founders=1M@5M", "--safes must not name 'founders', who is in --founders"),
        ("captable --safes a=5M@4M", "bml econ captable: cap must be a finite number above"),
        ("bass --p 0", "bml econ bass: p must be a finite number above 0"),
        ("runway --round-month 70", "rounds has one in month 70"),
        ("runway --round-amount 1M", "--round-amount is of a round: say when it comes, with --round-month"),
        ("runway --churn -0.1", "churn must be between 0 and 1"),
        ("runway --months 0", "months must be"),
        ("runway --scenario none.json", "scenario=none.json cannot be read: No such file"),
        ("runway --save none/x.json", "save=none/x.json cannot be written: No such file"),
        ("runway --scenario x.json --cash 1M --churn 0.1", "--cash, --churn would change some: change the file instead"),
    ],
)  # fmt: skip
def test_refused(arguments, said, capsys):
    assert main(["econ", *arguments.split()]) == 2
    assert said in capsys.readouterr().err


def test_a_scenario_file_gives_what_its_options_gave(tmp_path, capsys):
    path = str(tmp_path / "mine.json")
    options = "--cash 2M --fixed 120k --churn 0.05 --round-month 12 --months 30 --paths 500".split()
    saved = ask(capsys, "runway", *options, "--save", path)
    loaded = ask(capsys, "runway", "--scenario", path, "--paths", "500")
    assert loaded == saved
    shorter = ask(capsys, "runway", "--scenario", path, "--paths", "500", "--months", "24")
    assert "alive after 30 months" not in shorter["details"]
    (tmp_path / "mine.json").write_text((tmp_path / "mine.json").read_text().replace("0.05", "5"))
    assert main(["econ", "runway", "--scenario", path]) == 2
    said = capsys.readouterr().err
    assert "mine.json: company.churn must be between 0 and 1, got 5" in said


def test_names_that_the_answer_uses(capsys):
    assert main(["econ", "captable", "--safes", "new money=1M@5M", "--sale", "50M"]) == 2
    assert "--safes must not name 'new money'" in capsys.readouterr().err
    assert main(["econ", "captable", "--founders", "a=1M, a =2M"]) == 2
    assert "with different names" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "back"),
    [("--cac 1M", "never"), ("--gross-margin 0", "never"), ("--cac 1500 --growth 0.02", 70.85)],
)
def test_a_customer_who_is_never_paid_back_has_a_value(arguments, back, capsys):
    """What a customer brings is an answer, whether or not it repays what was spent to win it."""
    got = ask(capsys, "clv", *arguments.split())["details"]["paid back after"]["value"]
    assert got == (back if isinstance(back, str) else pytest.approx(back, abs=0.01))


def test_yc_series_a(capsys):
    """The published round of tests/econ/test_captable.py, from the shell."""
    options = "--founders founders=9.25M,team=650k --old-pool 100k --safes A=200k@4M,B=800k@8M"
    got = ask(
        capsys, "captable", *options.split(), *"--pre-money 15M --raise-usd 5M --pool 0.1".split()
    )
    assert got["details"]["price of a share"]["value"] == pytest.approx(1.1144, abs=1e-4)
    assert got["details"]["founders"]["value"] == pytest.approx(0.515, abs=5e-4)
