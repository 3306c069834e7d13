"""List prices and a published serving day: what they add up to, and what is refused."""

import pytest

from bigmodel_lab.econ import gross_margin, markup
from bigmodel_lab.plan import MODELS, list_price, serving_day
from bigmodel_lab.plan.tables import rows
from bigmodel_lab.units import Q

ON = "2026-11-22"


def test_the_published_day_adds_up():
    """DeepSeek, open-infra-index day 6: 1814 devices x 24 h x 2 USD = 87,072 USD exactly; the revenue to the tokens' rounding."""
    day = serving_day("deepseek-2025-02-27", ON)
    cost = day.device_time * day.price
    assert cost.to("USD").magnitude == pytest.approx(day.cost.magnitude, abs=0.5)
    earned = list_price("deepseek/r1-2025-02", ON).revenue(day.prompt, day.output, day.cached)
    assert earned.magnitude == pytest.approx(day.revenue.magnitude, rel=2e-4)
    assert earned.magnitude == pytest.approx(266e3 * 0.55 + 342e3 * 0.14 + 168e3 * 2.19)
    assert markup(earned, cost) == pytest.approx(5.45, abs=0.01)
    assert gross_margin(earned, cost) == pytest.approx(0.845, abs=5e-4)
    assert (day.cached / day.prompt).magnitude == pytest.approx(0.563, abs=1e-3)  # as printed


def test_revenue_counts_each_kind_of_token_once():
    p = list_price("azure/llama3.1-8b", ON)
    assert p.revenue(Q(1, "Mtoken"), 0) == Q(0.30, "USD")
    assert p.revenue(0, 1e6) == Q(0.61, "USD")
    assert p.revenue(2e6, 1e6, cached=2e6) == p.revenue(2e6, 1e6)  # no price for cached prompts
    r1 = list_price("deepseek/r1-2025-02", ON)
    assert r1.revenue(2e6, 0, cached=1e6).magnitude == pytest.approx(0.55 + 0.14)


def test_rows_name_models_of_the_library():
    for table in ("list_prices", "serving_days"):
        assert {r["model"] for r in rows(table).values()} <= set(MODELS)
    for name in rows("list_prices"):
        p = list_price(name, ON)
        assert Q(0, "USD/Mtoken") < p.cached_input <= p.input <= p.output


def test_refused():
    with pytest.raises(ValueError, match="prompt must be finite and at least 5 in token, got 3"):
        list_price("azure/llama3.1-8b", ON).revenue(3, 1, cached=5)
    with pytest.raises(ValueError, match=r"list price must be one of .* got 'azure'"):
        list_price("azure", ON)
    with pytest.raises(ValueError, match="serving day must be one of"):
        serving_day("yesterday", ON)
