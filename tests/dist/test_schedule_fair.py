"""Dominant-resource fairness on the paper's example, packing by hand, and Jain's index."""

import numpy as np
import pytest

from bigmodel_lab.dist.schedule import PLACES, drf, jain, pack


def test_the_example_of_the_paper():
    # Ghodsi and others (2011), section 4.1 and table 1: 9 CPUs and 18 GB, tasks of <1 CPU, 4 GB> and <3 CPU, 1 GB>
    tasks = drf([[1, 4], [3, 1]], [9, 18])
    assert tasks.tolist() == [3, 2]
    shares = tasks[:, None] * np.array([[1, 4], [3, 1]]) / [9, 18]
    assert shares.max(1) == pytest.approx([2 / 3, 2 / 3])  # their dominant shares are equal


def test_a_share_is_that_of_the_dominant_resource():
    # Tenths: a task of the first user has a share of 1, though it takes 1 of both resources; one of the second has 2
    assert drf([[1, 1], [2, 0]], [10, 10]).tolist() == [6, 2]


def test_one_resource_is_max_min_fairness_and_demand_can_be_limited():
    assert drf([[1], [1], [1]], [9]).tolist() == [3, 3, 3]
    assert drf([[1], [1], [1]], [10], most=[2, 9, 9]).tolist() == [2, 4, 4]
    assert drf([[2], [1]], [8]).tolist() == [2, 4]
    assert drf([[1, 0], [0, 1]], [3, 5]).tolist() == [3, 5]  # nobody is in another's way


@pytest.mark.parametrize("seed", range(20))
def test_nobody_gains_by_lying_and_nobody_envies_by_more_than_a_task(seed):
    rng = np.random.default_rng(seed)
    demand, capacity = rng.uniform(0.05, 1, (3, 2)), np.array([40.0, 40.0])
    tasks = drf(demand, capacity)
    held = tasks[:, None] * demand
    assert (held.sum(0) <= capacity * (1 + 1e-9)).all()
    assert (
        held.sum(0) + demand.min(0) > capacity
    ).any()  # somebody's next task fails on some resource
    lie = demand.copy()
    lie[0] *= rng.uniform(1, 2, 2)  # asks for more than it needs: useful tasks are what truly fits
    got = drf(lie, capacity)[0] * lie[0]
    assert int((got / demand[0]).min() + 1e-9) <= tasks[0] + 2


def test_jain():
    assert jain([3, 3, 3]) == 1
    assert jain([1, 0, 0, 0]) == 0.25
    assert jain([1, 3]) == pytest.approx(16 / 20)
    assert jain([0, 0]) == 1


def test_packing_by_hand():
    # two nodes of 8 devices; pieces 5, 3, 4, 2, 2
    need = np.array([[5.0], [3], [4], [2], [2]])
    assert pack(need, 2, [8], "first_node").node.tolist() == [0, 0, 1, 1, 1]
    assert pack(need, 2, [8], "fullest_node").node.tolist() == [0, 0, 1, 1, 1]
    spread = pack(need, 2, [8], "emptiest_node")
    assert spread.node.tolist() == [0, 1, 1, 0, -1]
    assert spread.free.tolist() == [[1], [1]]
    assert spread.utilisation == pytest.approx([14 / 16])
    assert spread.fragmentation([2]) == 1  # two devices are free and no job of two fits
    assert spread.fragmentation([1]) == 0


def test_best_fit_keeps_a_whole_node_free():
    need = np.full((8, 1), 1.0)
    free = {p: pack(need, 8, [8], p) for p in PLACES}
    assert free["fullest_node"].fragmentation([8]) == 0  # 7 nodes of 8 are whole
    assert free["emptiest_node"].fragmentation([8]) == 1  # none is
    assert free["emptiest_node"].utilisation == free["fullest_node"].utilisation


def test_two_resources_strand_each_other():
    # memory runs out on both nodes and devices stay: [devices, GB]
    got = pack(np.array([[1.0, 60], [1, 60], [6, 10]]), 2, [8, 64], "first_node")
    assert got.node.tolist() == [0, 1, -1]
    assert got.fragmentation([1, 16]) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: drf([[1, 2]], [1]), "capacity must have shape"),
        (lambda: drf([[0, 0]], [1, 1]), "demand must be at least 0 and not 0 in all resources"),
        (lambda: drf([[1]], [4], most=[1, 2]), "most must have shape"),
        (lambda: jain([]), "x must hold at least one number"),
        (lambda: jain([-1, 2]), "each at least 0"),
        (lambda: pack([[1]], 2, [8], "first_nod"), "Did you mean 'first_node'"),
        (lambda: pack([[9.0]], 2, [8], lambda piece: 0), "puts job 0 on node 0, where it does not fit"),
        (lambda: pack([[1.0]], 2, [8], lambda piece: 5), "puts job 0 on node 5, where it does not fit"),
        (lambda: pack([[1.0]], 2, [8, 8], "first_node"), "total must have shape"),
        (lambda: pack([[1.0]], 0, [8], "first_node"), "nodes must be at least 1"),
        (lambda: pack([[-1.0]], 2, [8], "first_node"), "need must be at least 0, total above 0"),
        (lambda: pack([[1.0]], 2, [0], "first_node"), "need must be at least 0, total above 0"),
        (lambda: pack([[1.0]], 2, [8], "first_node").fragmentation([1, 1]), "need must have shape"),
    ],
)  # fmt: skip
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
