"""From a small run to a larger model: the description counts right, the growth keeps the form, the roof stays with its run."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_lab.models.config import GPTConfig
from bigmodel_lab.plan import (
    MODELS,
    ChinchillaLaw,
    Measured,
    anchor,
    count_parameters,
    describe,
    grow,
    iso_flop,
    kernel_share,
    matmul_peak,
    measure,
    note_peak,
    peak_of,
)
from bigmodel_lab.train import Layout, RunRecord
from bigmodel_lab.units import Q


def record(**changes):
    fields = dict(
        model="tiny", parameters=count_parameters(TINY).total, data="text", samples=320, tokens=320 * 32, seed=0,
        loss=(4.0,) * 10, compute_s=(0.03,) * 10, communication_s=(0.01,) * 10, sent_bytes={}, machine={"cpu": "x"}, versions={},
    )  # fmt: skip
    return RunRecord(**fields | changes)


TINY = describe(GPTConfig.gpt2(65, 32, 2, 64, 4))


@pytest.mark.parametrize(
    "config",
    [
        GPTConfig.gpt2(),
        GPTConfig.gpt2(512, 64, 2, 64, 4, bias=False),
        GPTConfig.llama(),
        GPTConfig.llama(512, 64, 3, 96, 6, n_kv_heads=2),
        GPTConfig.llama(512, 64, 1, 32, 2, tied=True, bias=True),
    ],
    ids=str,
)
def test_a_description_counts_what_the_config_counts(config):
    assert count_parameters(describe(config)).total == config.n_parameters


def test_the_known_ones_are_found_again():
    assert dataclasses.replace(describe(GPTConfig.gpt2()), name="gpt2") == MODELS["gpt2"]
    assert dataclasses.replace(describe(GPTConfig.llama()), name="llama2-7b") == MODELS["llama2-7b"]


def test_a_config_that_the_description_misses_is_refused():
    class Odd(GPTConfig):
        n_parameters = 7

    with pytest.raises(ValueError, match="config has 7 parameters and its description"):
        describe(Odd.gpt2(512, 64, 2, 64, 4))


@settings(max_examples=60, deadline=None)
@given(
    base=st.sampled_from(["gpt2", "llama2-7b", "llama3-8b", "qwen2.5-7b"]),
    parameters=st.floats(2e8, 1e12),
)
def test_grown_models_have_the_size_asked_for_and_the_form_they_had(base, parameters):
    arch = MODELS[base]
    large = grow(arch, Q(parameters, "parameter"), vocab=32000, context=2048)
    assert count_parameters(large).total == pytest.approx(parameters, rel=0.06)
    assert large.width == 128 * large.n_heads
    assert 1 / 3 < large.n_layers / large.n_heads < 3
    assert large.hidden / large.width == pytest.approx(arch.hidden / arch.width, rel=0.01)
    for name in ("norm", "biases", "positions", "head", "gated"):
        assert getattr(large, name) == getattr(arch, name)
    assert large.n_heads % 8 == 0


def test_growing_is_monotone():
    sizes = [count_parameters(grow(TINY, 2.0**k)).total for k in range(20, 40)]
    assert sizes == sorted(sizes)


LAW = ChinchillaLaw(1.5, 30.0, 65.0, 0.35, 0.35)


def ladder(sizes=(1e4, 2e4, 4e4, 8e4), tokens=(5e4, 1e5, 2e5, 4e5, 8e5, 1.6e6), law=LAW):
    N, D = (list(x) for x in zip(*itertools.product(sizes, tokens), strict=True))
    return N, D, [law.loss(n, d) for n, d in zip(N, D, strict=True)]


def test_the_best_size_of_a_ladder_is_that_of_its_law():
    """Runs that follow a Chinchilla law: the parabola finds its optimum to a tenth (it is no parabola), within its range."""
    best = iso_flop(*ladder())
    assert best.parameters == pytest.approx(LAW.optimum(best.compute).parameters.magnitude, rel=0.1)
    assert best.sizes[0] < best.parameters < best.sizes[-1]
    assert best.losses == pytest.approx(
        [LAW.loss(n, best.compute / 6 / n) for n in best.sizes], rel=0.01
    )
    assert best.loss(best.parameters) < min(best.loss(n) for n in best.sizes) + 1e-12
    assert iso_flop(*ladder(), Q(5e10, "FLOP")).compute == 5e10
    assert iso_flop(*ladder(), 5e10).parameters < iso_flop(*ladder(), 1e11).parameters


def test_only_sizes_that_cover_the_compute_count():
    N, D, L = ladder()
    best = iso_flop([*N, 1e9], [*D, 1e5], [*L, 0.1])
    assert 1e9 not in best.sizes
    with pytest.raises(ValueError, match="must be covered by runs of at least 3 sizes, got 0"):
        iso_flop(N, D, L, 1e20)
    with pytest.raises(
        ValueError,
        match=r"must lie between the sizes run, 1e.04 to 8e.04 parameters, got .*: run smaller models",
    ):
        iso_flop(N, D, [n / 1e4 for n in N])
    with pytest.raises(ValueError, match="run larger models too"):
        iso_flop(N, D, [1 / n for n in N])


def test_the_compute_is_chosen_where_the_best_size_is_inside():
    """Four large sizes cover a higher compute, where the smallest of them is the best; three cover one with its optimum."""
    small = ladder(sizes=(1e4, 2e4, 4e4), tokens=(5e4, 1e5, 2e5, 4e5))
    large = ladder(sizes=(1e6, 2e6, 4e6, 8e6), tokens=(1e5, 1e6))
    both = [a + b for a, b in zip(small, large, strict=True)]
    with pytest.raises(ValueError, match="run smaller models"):
        iso_flop(*large)
    assert iso_flop(*both) == iso_flop(*small)


def test_a_run_that_diverged_is_no_point():
    N, D, L = ladder()
    with pytest.raises(ValueError, match="each of loss must be a finite number above 0, got nan"):
        iso_flop(N, D, [*L[:-1], float("nan")])


def test_an_anchored_law_goes_through_its_anchor_with_its_exponent():
    law = anchor(iso_flop(*ladder()), "kaplan")
    assert law.optimum(law.compute).parameters.magnitude == pytest.approx(law.parameters)
    assert law.optimum(100 * law.compute).parameters.magnitude == pytest.approx(
        100**0.73 * law.parameters
    )
    best = law.optimum(Q(1e20, "FLOP"))
    assert 6 * best.parameters.magnitude * best.tokens.magnitude == pytest.approx(1e20)
    assert "Kaplan" in law.source
    with pytest.raises(ValueError, match="exponent must be one of"):
        anchor(iso_flop(*ladder()), "approach 4")


def test_what_cannot_be_grown():
    with pytest.raises(
        ValueError, match="too few to grow to: one layer of one head of 128 channels"
    ):
        grow(TINY, 1000)
    with pytest.raises(ValueError, match="must be dense, with heads, to be grown; mixtral-8x7b"):
        grow(MODELS["mixtral-8x7b"], 1e9)
    with pytest.raises(TypeError, match="parameters must be a quantity in parameter"):
        grow(TINY, Q(3, "GB"))


def test_the_roof_stays_with_its_run(tmp_path):
    noted = RunRecord.load(note_peak(record(), Q(50, "GFLOP/s")).save(tmp_path / "r.json"))
    assert peak_of(noted) == Q(5e10, "FLOP / s")
    assert noted.machine["cpu"] == "x"
    m = measure(noted, TINY, 32)
    assert isinstance(m, Measured)
    assert kernel_share(noted, TINY, 32) == pytest.approx(m.flops.magnitude / 0.3 / 5e10)
    with pytest.raises(ValueError, match="machine has no 'matmul_FLOP_per_s': measure it"):
        peak_of(record())
    with pytest.raises(
        TypeError, match=r"machine\['matmul_FLOP_per_s'\] must be a number .* got 'fast'"
    ):
        peak_of(record(machine={"matmul_FLOP_per_s": "fast"}))


def test_waiting_for_other_ranks_is_no_share_of_computing():
    """A planner that takes the share adds the communication of its own fleet: that of the laptop must not be in it, too."""
    still, waiting = (
        note_peak(record(communication_s=(s,) * 10), Q(50, "GFLOP/s")) for s in (0.0, 0.3)
    )
    assert kernel_share(still) == pytest.approx(kernel_share(waiting))


def test_ranks_of_one_machine_share_its_roof():
    one, two = (note_peak(record(layout=Layout(dp=n)), Q(50, "GFLOP/s")) for n in (1, 2))
    assert kernel_share(one) == pytest.approx(kernel_share(two))


def test_the_roof_is_a_speed():
    assert 1e8 < matmul_peak(128, 3).to("FLOP/s").magnitude < 1e15
    with pytest.raises(ValueError, match="size must be finite and at least 1"):
        matmul_peak(0)
    with pytest.raises(ValueError, match="threads must be finite and at least 1"):
        matmul_peak(128, 3, threads=0)
