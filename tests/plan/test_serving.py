"""Serving at the roofline: published bounds, both sides of the ridge, experts, and a simulation that steps through it."""

import pytest

from bigmodel_lab.plan import (
    MODELS,
    Replica,
    Workload,
    count_parameters,
    decode_step,
    device,
    forward_flops,
    kv_cache,
    largest_batch,
    plan_serving,
    prefill,
    price,
    serve,
    simulate_serving,
)
from bigmodel_lab.plan.serving import decode_parts
from bigmodel_lab.rng import generator
from bigmodel_lab.units import Q

ON = "2026-11-22"
H100 = device("h100-sxm", ON)
SEVEN = Replica(MODELS["llama2-7b"], H100)
EIGHT = Replica(MODELS["llama3-8b"], H100, compute_share=0.5, bandwidth_share=0.7)


def test_decode_bound_of_a_7b_model():
    """One sequence of a 7B model in 16 bits on an H100: at most 3.35e12 / 13.48e9 = 249 token/s."""
    assert 1 / decode_step(SEVEN).magnitude == pytest.approx(249, abs=0.6)


def test_llama2_70b_needs_two():
    """138 GB of 16-bit weights: two H100 at least, one with 4 bits a weight."""
    big = MODELS["llama2-70b"]
    with pytest.raises(
        ValueError,
        match=r"llama2-70b with one sequence of 4096 tokens needs 139.3 GB and 1 x h100-sxm",
    ):
        largest_batch(Replica(big, H100), 4096)
    assert largest_batch(Replica(big, H100, 2), 4096) == int((144e9 - 137.95e9) // 1.342e9)
    assert largest_batch(Replica(big, H100, weight_bytes=0.5), 4096) > 20


def test_prefill_is_arithmetic_decode_is_memory():
    flops = forward_flops(MODELS["llama2-7b"], 2048, attention="causal")
    work = (flops.projections + flops.core).magnitude + flops.head.magnitude / 2048
    assert prefill(SEVEN, 2048).magnitude == pytest.approx(work / 989.4e12)
    assert prefill(SEVEN, 1).magnitude == pytest.approx(SEVEN.weights.magnitude / 3.35e12)
    arithmetic, memory = decode_parts(SEVEN, 1, 0)
    assert memory / arithmetic == pytest.approx(
        295, rel=0.03
    )  # the ridge, FLOP/byte, at 1 FLOP/byte


def test_a_batch_is_nearly_free_until_the_ridge():
    """Without a cache to read, 256 sequences decode in the time of one; 512 do not: the ridge is 295 FLOP/byte."""
    one = decode_step(SEVEN).magnitude
    assert decode_step(SEVEN, 256).magnitude == pytest.approx(one)
    assert decode_step(SEVEN, 512).magnitude > 1.6 * one


def test_the_cache_is_read_too():
    more = decode_step(SEVEN, 16, 4096).magnitude - decode_step(SEVEN, 16).magnitude
    assert more == pytest.approx(kv_cache(MODELS["llama2-7b"], 4096, 16).magnitude / 3.35e12)


def test_experts_read_what_their_tokens_chose():
    """Mixtral alone reads the 12.9B that work for a token, a large batch all 46.7B."""
    a = MODELS["mixtral-8x7b"]
    r, count = Replica(a, H100, 2), count_parameters(a)
    assert r.weights_read(1) == pytest.approx(2 * count.active)
    assert r.weights_read(1000) == pytest.approx(2 * count.total)
    simulated = generator(0, "experts")
    chosen = [len({e for _ in range(4) for e in simulated.permutation(8)[:2]}) for _ in range(4000)]
    each = count.idle / 6 * 2  # bytes of one expert in all layers
    outside = 2 * count.total - 8 * each
    assert r.weights_read(4) == pytest.approx(outside + each * sum(chosen) / 4000, rel=0.01)


def test_two_devices_halve_the_traffic_and_add_collectives():
    two = Replica(MODELS["llama2-7b"], H100, 2)
    sent = 2 * 32 * 2 * (1 / 2) * 4096 * 2  # two all-reduces a layer, 2 (n-1)/n, 2 bytes
    assert decode_step(two).magnitude == pytest.approx(
        decode_step(SEVEN).magnitude / 2 + sent / 450e9
    )


def test_what_cannot_be_divided_is_kept_by_every_device():
    """8 heads of keys and values go over 8 devices once each; one head (MQA) or an MLA latent is on all of them."""
    a = MODELS["llama3-70b"]
    assert Replica(a, H100, 8).kv_copies == 1
    assert Replica(a.but(n_kv_heads=1), H100, 8).kv_copies == 8
    assert Replica(a.but(n_kv_heads=4), H100, 8).kv_copies == 2
    h200 = device("h200-sxm", ON)
    v3 = Replica(MODELS["deepseek-v3"], h200, 8, weight_bytes=1)
    room = 0.9 * 8 * 141e9 - count_parameters(MODELS["deepseek-v3"]).total
    assert largest_batch(v3, 4096) == int(room // (8 * 70_272 * 4096))


def test_mla_decodes_in_the_latent_space():
    """A step of DeepSeek-V3 at 4096 positions: 2 L H (2 x 512 + 64) FLOP a position, 3.4 times the expanded heads'."""
    r = Replica(MODELS["deepseek-v3"], device("h200-sxm", ON), 8)
    near, far = (decode_parts(r, 1, c)[0] for c in (0, 4096))
    assert (far - near) * 8 * 989.4e12 == pytest.approx(4096 * 2 * 61 * 128 * 1088)


@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("batch", [1, 8, 32, 128])
def test_formula_against_a_simulation(batch, spread):
    """Kept full, equal and geometric lengths: throughput within 3 %. With unequal lengths the cache is longer, too,
    since long outputs are in flight longer: `Workload.context` knows.
    """
    workload = Workload(500, 200, spread)
    said = serve(EIGHT, workload, batch)
    done = simulate_serving(EIGHT, workload, None, batch, 300 + 20 * batch, generator(1, "serve"))
    assert done.output_per_s == pytest.approx(said.output_per_s.magnitude, rel=0.03)


def test_littles_law_below_saturation():
    """In flight = rate x time in flight, at a rate that the replica can carry; and nobody is quicker than alone."""
    workload = Workload(500, 200)
    done = simulate_serving(EIGHT, workload, 8.0, 64, 3000, generator(2, "serve"))
    assert done.requests_per_s == pytest.approx(8.0, rel=0.05)
    inside = (done.latency_s - done.first_token_s).mean()
    assert done.batch == pytest.approx(8.0 * inside, rel=0.06)
    assert (
        done.latency_s.min()
        >= 0.999 * (prefill(EIGHT, 500) + 200 * decode_step(EIGHT, 1, 500)).magnitude
    )


def test_service_adds_up():
    s = serve(EIGHT, Workload(500, 200), 32)
    assert s.output_per_s.magnitude == pytest.approx(200 * s.requests_per_s.magnitude)
    assert s.batch == pytest.approx((s.requests_per_s * s.latency).magnitude)  # Little
    assert s.latency.magnitude == pytest.approx(
        s.first_token.magnitude + 200 * s.per_token.magnitude, rel=1e-9
    )
    assert s.limit == "memory"


def test_cost_of_a_million_tokens():
    s = serve(EIGHT, Workload(500, 200), 32)
    by_hand = 2.95 / 3600 / s.output_per_s.magnitude * 1e6
    cost = s.cost_per_million(price("h100-sxm", ON).middle)
    assert cost.to("USD / Mtoken").magnitude == pytest.approx(by_hand)
    assert s.cost_per_million(2.95, 0.5).magnitude == pytest.approx(2 * by_hand)


def test_dollars_and_dollars_per_token_do_not_add():
    cost = serve(EIGHT, Workload(500, 200), 32).cost_per_million(2.95)
    with pytest.raises(Exception, match="Cannot convert from 'USD' "):
        Q(1.0, "USD") + cost


def test_fleet_for_a_target():
    fast = plan_serving(EIGHT, Workload(500, 200), 50, per_token=0.015)
    slow = plan_serving(EIGHT, Workload(500, 200), 50, per_token=0.030)
    assert fast.service.per_token <= Q(0.015, "s")
    assert serve(EIGHT, Workload(500, 200), fast.service.batch + 1).per_token > Q(0.015, "s")
    assert fast.devices > slow.devices
    assert fast.cost_per_million(2.95) > slow.cost_per_million(2.95)
    assert slow.busy <= 0.7
    assert slow.busy * slow.replicas * slow.service.requests_per_s.magnitude == pytest.approx(50)
    month = slow.cost_per_month(2.95).magnitude
    assert month == pytest.approx(2.95 * slow.devices * 730.5)
    tokens = 50 * 200 * 730.5 * 3600
    assert slow.cost_per_million(2.95).to("USD/Mtoken").magnitude == pytest.approx(
        month / tokens * 1e6
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: serve(EIGHT, Workload(500, 200), 10**5), r"batch=100000 does not fit: beside the weights there is room for \d+"),
        (lambda: plan_serving(EIGHT, Workload(500, 200), 1, per_token=1e-4), r"no batch of llama3-8b on 1 x h100-sxm keeps per_token <= 0.0001 s: alone a request has per_token 0.00\d+ s"),
        (lambda: plan_serving(EIGHT, Workload(500, 200), 0), "rate must be a finite number above 0 in request / s"),
        (lambda: Workload(0, 1), "prompt must be finite and at least 1"),
        (lambda: Replica(MODELS["gpt2"], H100, 16), "devices must be between 1 and 8, got 16"),
        (lambda: Replica(MODELS["gpt2"], H100, bandwidth_share=0), "bandwidth_share must be a finite number above 0 and at most 1"),
        (lambda: Replica(MODELS["gpt2"], device("a100-sxm-80gb", ON), dtype="fp8"), "dtype of a100-sxm-80gb"),
    ],
)  # fmt: skip
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
