"""A small GPT and its batches, for the tests that train it on many ranks and once alone."""

import math

import torch

from bigmodel_lab import rng
from bigmodel_lab.models import GPT
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
