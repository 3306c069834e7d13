"""Case studies: the two tables are whole, and what the table of figures says follows from itself."""

import re
from dataclasses import replace

import pytest

from bigmodel_lab.econ import cagr, cases, gross_margin, markup
from bigmodel_lab.plan import energy, price
from bigmodel_lab.units import Q, Quantity

ON = "2026-11-22"
SAID = {p.name: p.value for p in cases.published()}


def test_each_claim():
    for c in cases.claims():
        assert c.article in ("000", "001", "002", "public")
        assert re.fullmatch(r"F\d\d" if c.article == "public" else r"l\.\d+", c.lines)
        assert c.kind in cases.KINDS
        assert c.company
        assert c.claim.isascii()
        assert c.grade in cases.GRADES
        assert not (c.inputs and not c.number), f"inputs of what? {c}"
    assert len({(c.company, c.claim) for c in cases.claims()}) == len(cases.claims())


def test_no_claim_of_the_articles_can_be_looked_up():
    """What chapter 27 counts: founding years and 7x24 are all the numbers there are, and none has a source."""
    told = [c for c in cases.claims() if c.article != "public"]
    assert {c.company for c in told} >= {"XX", "YY", "ZZ", "AA", "company A", "002 case 1"}
    assert sorted(c.claim[:10] for c in told if c.number) == ["founded in"] * 3 + ["support an"]
    assert all(c.grade == "asserted" for c in told)


def test_grades():
    bare = replace(cases.claims()[0], number=False, source=False, inputs=False)
    assert bare.grade == "asserted"
    assert replace(bare, source=True).grade == "asserted"
    assert replace(bare, number=True).grade == "asserted"
    assert replace(bare, number=True, source=True).grade == "measured"
    assert replace(bare, number=True, source=True, inputs=True).grade == "recomputable"


def test_recomputable_claims_follow_from_the_table():
    """Each claim called recomputable states a number that rows of the table give; no other claim is called so."""
    rate = price("h800-sxm", ON).middle
    caught = SAID["epic-sepsis"] - SAID["epic-missed"]
    computed = (
        ("DeepSeek", "545 %", 100 * markup(SAID["deepseek-revenue"], SAID["deepseek-cost"]), 545),
        ("DeepSeek", "5.576 million", (SAID["v3-hours"] * rate).to("MUSD"), 5.576),
        ("Midjourney", "5 million", SAID["midjourney-revenue"].to("MUSD") / 40, 5),
        ("IBM Watson", "62 million", (SAID["anderson-ibm"] + SAID["anderson-other"]).to("MUSD"), 62),
        ("Epic sepsis", "one alarm in eight", SAID["epic-alarms"] / caught, 8),
        ("OpenAI", "20.92", (SAID["openai-cost-2025"] - SAID["openai-revenue-2025"]).to("GUSD"), 20.92),
    )  # fmt: skip
    said = [c for c in cases.claims() if c.grade == "recomputable"]
    for claim, (company, words, ours, number) in zip(said, computed, strict=True):
        assert claim.company.startswith(company)
        assert words in claim.claim
        assert float(getattr(ours, "magnitude", ours)) == pytest.approx(number, rel=0.04)


def test_each_published_figure():
    assert len(SAID) == len(cases.published())
    for p in cases.published():
        assert p.source
        assert p.what
        assert p.confidence in cases.CONFIDENCE
        assert re.fullmatch(r"20\d\d(-[01]\d(-[0-3]\d)?)?", p.date), p.name
        assert float(p.value.magnitude if isinstance(p.value, Quantity) else p.value) > 0
    assert cases.published("deepseek-cost").value == Q(87072, "USD")
    with pytest.raises(ValueError, match=r"published figure must be one of .* Did you mean"):
        cases.published("deepseek-costs")


def test_deepseek_day():
    """Revenue, cost and margin of the day follow from its tokens, prices and nodes; the tokens are rounded to 3 digits."""
    misses = SAID["deepseek-input"] - SAID["deepseek-hits"]
    earned = (
        SAID["deepseek-hits"] * SAID["deepseek-price-hit"]
        + misses * SAID["deepseek-price-miss"]
        + SAID["deepseek-output"] * SAID["deepseek-price-output"]
    ).to("USD")
    spent = Q(SAID["deepseek-nodes"] * 8 * 24, "device * hour") * price("h800-sxm", ON).middle
    assert earned.magnitude == pytest.approx(SAID["deepseek-revenue"].magnitude, rel=2e-4)
    assert spent.to("USD").magnitude == pytest.approx(SAID["deepseek-cost"].magnitude)
    day = SAID["deepseek-revenue"], SAID["deepseek-cost"]
    assert markup(*day) == pytest.approx(SAID["deepseek-margin"], abs=0.005)
    assert gross_margin(*day) == pytest.approx(0.845, abs=5e-4)


def test_bills():
    rate = price("h800-sxm", ON).middle
    for name, tolerance in (("v3", 1e-9), ("r1", 0.003)):
        cost = (SAID[f"{name}-hours"] * rate).to("USD").magnitude
        assert cost == pytest.approx(SAID[f"{name}-bill"].magnitude, rel=tolerance)
    assert energy(SAID["bloom-hours"], 400).magnitude == pytest.approx(
        SAID["bloom-energy"].magnitude
    )


def test_losses_and_growth():
    for year in (2024, 2025):
        loss = SAID[f"openai-cost-{year}"] - SAID[f"openai-revenue-{year}"]
        assert loss.magnitude == pytest.approx(SAID[f"openai-loss-{year}"].magnitude, rel=1e-3)
    blog = SAID["openai-half-net-loss"] - SAID["openai-half-revenue"]
    assert blog.magnitude == pytest.approx(SAID["openai-half-told"].magnitude)
    yearly = cagr(SAID["zhipu-revenue-2022"], SAID["zhipu-revenue-2024"], 2)
    assert yearly == pytest.approx(1.333, abs=1e-3)
    assert SAID["midjourney-revenue"] / SAID["midjourney-staff"] == SAID["midjourney-per-head"]


def test_sepsis_alarm():
    """Wong et al. (2021): 33 % sensitivity, 83 % specificity and 12 % precision follow from four counts."""
    stays, ill, missed, alarms = (
        SAID[f"epic-{n}"] for n in ("stays", "sepsis", "missed", "alarms")
    )
    caught = ill - missed
    assert caught / ill == pytest.approx(SAID["epic-sensitivity"], abs=0.005)
    assert 1 - (alarms - caught) / (stays - ill) == pytest.approx(
        SAID["epic-specificity"], abs=0.005
    )
    assert caught / alarms == pytest.approx(SAID["epic-precision"], abs=0.005)
