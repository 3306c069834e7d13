"""A small GPT and its batches, for the tests that train it on many ranks and once alone."""

import dataclasses
import math

import torch

from bigmodel_lab import rng
from bigmodel_lab.models import GPT, GPTConfig
from bigmodel_lab.train import AdamW, clip_gradients, decay_groups


def noisy_gpt(config, frozen_layer: int) -> GPT:
    """A model in float64 whose biases and gains are not zeros and ones, and of which one matrix is frozen."""
    model = GPT(config, seed=1).double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = rng.generator(2, name).standard_normal(tuple(p.shape))
            p.add_(torch.from_numpy(noise), alpha=0.1)
    model.blocks[frozen_layer].mlp.up.weight.requires_grad_(False)
    return model


def token_batch(step: int, rows: int, config):
    """Tokens (rows, context) of a step, and those that follow them."""
    shape = (rows, config.context + 1)
    draws = rng.generator(3, "batch", str(step)).integers(config.vocab_size, size=shape)
    tokens = torch.from_numpy(draws)
    return tokens[:, :-1], tokens[:, 1:]


def adamw(groups):
    return AdamW(groups, lr=0.01)


def train_alone(model, batches, clip: float = math.inf):
    """Train on every batch in one process; return the losses and the norms of the gradients."""
    opt, losses, norms = adamw(decay_groups(model, 0.1)), [], []
    for tokens, targets in batches:
        opt.zero_grad()
        loss = model(tokens, targets)
        loss.backward()
        norms.append(clip_gradients(model.parameters(), clip))
        opt.step()
        losses.append(loss.item())
    return losses, norms


@dataclasses.dataclass(frozen=True)
class GptCase:
    """What is trained: a noisy model of which one matrix is frozen, and a batch a step."""

    config: GPTConfig
    rows: tuple[int, ...]  # of each batch
    frozen_layer: int
    clip: float = math.inf
    frozen: tuple[str, ...] = ()  # what the names of further frozen parameters begin with

    def model(self) -> GPT:
        model = noisy_gpt(self.config, self.frozen_layer)
        for name, p in model.named_parameters():
            if name.startswith(self.frozen):
                p.requires_grad_(False)
        return model

    def batch(self, step: int):
        return token_batch(step, self.rows[step], self.config)

    def alone(self):
        """Train in one process; return the model, the losses and the norms of the gradients."""
        model = self.model()
        return model, *train_alone(model, map(self.batch, range(len(self.rows))), self.clip)


# For data parallelism on 2 to 4 ranks: 5 rows leave uneven shares, 3 leave a rank of four without a row
UNEVEN = GptCase(
    GPTConfig.gpt2(vocab_size=11, context=6, n_layers=3, width=8, n_heads=2),
    rows=(8, 5, 3, 8),
    frozen_layer=1,
    clip=0.5,
)
