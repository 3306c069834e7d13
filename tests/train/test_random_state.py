"""Random generators: all of a model's found, put back to the bit, torch's own left alone."""

import json

import numpy as np
import pytest
import torch

from bigmodel_lab.rng import generator
from bigmodel_lab.train.random_state import private_randomness, random_state, set_random_state
from bigmodel_lab.train.tree import pack, unpack


class Noisy(torch.nn.Module):
    def __init__(self, seed):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(1))
        self.generator = generator(seed)
        self.inner = torch.nn.Module()
        self.inner.old = np.random.Generator(np.random.MT19937(seed))
        self.inner.torch = torch.Generator().manual_seed(seed)

    def draw(self):
        return [
            self.generator.random(),
            self.generator.integers(10, dtype=np.uint32).item(),  # leaves half a word behind
            self.inner.old.random(),
            torch.rand((), generator=self.inner.torch).item(),
            torch.rand(()).item(),
        ]


def test_every_generator_goes_on_from_where_it_was():
    with torch.random.fork_rng():
        model = Noisy(0)
        model.draw()
        packed, tensors = pack(random_state(model))
        want = [model.draw() for _ in range(3)]
        other = Noisy(1)
        assert other.draw() != want[0]
        set_random_state(other, unpack(json.loads(json.dumps(packed)), tensors))
        assert [other.draw() for _ in range(3)] == want


def test_torch_s_generator_is_put_back():
    before = torch.get_rng_state()
    with private_randomness(Noisy(0)):
        torch.manual_seed(3)
        torch.rand(5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_with_other_generators_is_refused():
    state = random_state(Noisy(0))
    with pytest.raises(ValueError, match=r"they differ in generator, inner\.old, inner\.torch"):
        set_random_state(torch.nn.Linear(1, 1), state)
