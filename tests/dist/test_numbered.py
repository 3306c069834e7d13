"""The numbers of a model that a rank holds are told in runs, and read back."""

import pytest
import torch

from bigmodel_lab.dist.numbered import runs_of, spelled_out


@pytest.mark.parametrize("numbers", [[], [5], [0, 1, 2], [3, 4, 9, 1, 2, 2]])
def test_runs_spell_the_same_numbers(numbers):
    numbers = torch.tensor(numbers, dtype=torch.long)
    assert spelled_out(runs_of(numbers)).tolist() == numbers.tolist()
