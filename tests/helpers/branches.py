"""A model that does not use all of its parameters, for the tests of gradients that are missing on some ranks."""

import torch


class Branches(torch.nn.Module):
    """A parameter that no row uses, and one that only some rows use."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(1)
        weights = torch.randn(3, 4, generator=g, dtype=torch.float64)
        self.first, self.second, self.never = map(torch.nn.Parameter, weights)

    def forward(self, x):
        h = x * self.first
        if (x[:, 0] > 2).any():
            h = h + torch.where(x[:, :1] > 2, x * self.second, 0.0)
        return h.tanh().mean(0).sum()


ROWS_OF_BRANCHES = torch.arange(12, dtype=torch.float64).view(3, 4) / 3  # row 2 uses `second`
