"""Our parallelism beside torch's own: same model, same batches, same AdamW, in float64, and at the end the same parameters.

All comparisons with one number of ranks share a launch. The issue asks for 1e-6. Seen after 4 steps, with torch 2.13: on 2
ranks 0 for data parallelism and ZeRO, 3e-12 for tensor, sequence and pipeline; on 4 ranks 1e-12, and 5e-12 for tensor.
"""

import warnings

import pytest
import torch
import torch.distributed as td
from gpt_cases import noisy_gpt, token_batch
from torch import nn
from torch.nn import functional as F

from bigmodel_lab import dist
from bigmodel_lab.dist.data_parallel import DataParallel, share
from bigmodel_lab.dist.overlap import OverlappedDataParallel
from bigmodel_lab.dist.pipeline import Pipeline
from bigmodel_lab.dist.sharded_gpt import ShardedGPT, cut_layers
from bigmodel_lab.dist.tensor_parallel import TensorParallel
from bigmodel_lab.dist.zero import Zero
from bigmodel_lab.models import GPTConfig
from bigmodel_lab.train import decay_groups

STEPS, ROWS, T, MICROS = 4, 8, 6, 4
SIZES = dict(vocab_size=12, context=T, n_layers=4, width=16, n_heads=4)
TIED, UNTIED = GPTConfig.gpt2(**SIZES), GPTConfig.gpt2(**SIZES, tied=False)
PARAMETERS = 1e-10  # AdamW divides by the root of gradients that are nearly zero
LOSSES = 1e-13


def adamw(groups):
    return torch.optim.AdamW(groups, lr=0.01, foreach=False)


def batch(step):
    return token_batch(step, ROWS, TIED)


def mine(step):
    """This rank's rows of a batch; ROWS is a multiple of the ranks, as torch weighs every rank alike."""
    rows, _ = share(torch.arange(ROWS).numpy(), td.get_rank(), td.get_world_size())
    return tuple(t[rows] for t in batch(step))


def difference(ours, theirs) -> float:
    """Largest absolute difference between two lists of tensors."""
    return max(
        (a.detach() - b.detach()).abs().max().item() for a, b in zip(ours, theirs, strict=True)
    )


def train(model, opt, average=lambda: None):
    for step in range(STEPS):
        opt.zero_grad()
        model(*mine(step)).backward()
        average()
        opt.step()
    return model


def torch_ddp():
    """Parameters after training with torch's DistributedDataParallel."""
    model = noisy_gpt(TIED, frozen_layer=1)
    replicas = nn.parallel.DistributedDataParallel(model, bucket_cap_mb=0.01)
    train(replicas, adamw(decay_groups(model, 0.1)))
    start = noisy_gpt(TIED, frozen_layer=1)
    assert difference(model.parameters(), start.parameters()) > 0.01  # it has learned something
    return list(model.parameters())


def data_parallel():
    want = torch_ddp()
    model = noisy_gpt(TIED, frozen_layer=1)
    train(model, adamw(decay_groups(model, 0.1)), DataParallel(model).average_gradients)
    seen = {"DataParallel": difference(model.parameters(), want)}

    model = noisy_gpt(TIED, frozen_layer=1)
    replicas, opt = (
        OverlappedDataParallel(model, bucket_bytes=10_000),
        adamw(decay_groups(model, 0.1)),
    )
    for step in range(STEPS):
        opt.zero_grad()
        replicas.backward(model(*mine(step)))
        replicas.finish()
        opt.step()
    return seen | {"OverlappedDataParallel": difference(model.parameters(), want)}


def accumulation():
    """Two micro-batches a step, the first under no_sync, on both sides."""
    models = [noisy_gpt(TIED, frozen_layer=1) for _ in range(2)]
    theirs = nn.parallel.DistributedDataParallel(models[0])
    ours = OverlappedDataParallel(models[1], bucket_bytes=10_000)
    opts = [adamw(decay_groups(m, 0.1)) for m in models]
    for step in range(STEPS):
        x, y = mine(step)
        half = len(x) // 2
        for opt in opts:
            opt.zero_grad()
        with theirs.no_sync():
            (theirs(x[:half], y[:half]) / 2).backward()
        (theirs(x[half:], y[half:]) / 2).backward()
        with ours.no_sync():
            ours.backward(models[1](x[:half], y[:half]) / 2)
        ours.backward(models[1](x[half:], y[half:]) / 2)
        ours.finish()
        for opt in opts:
            opt.step()
    return {"no_sync": difference(models[1].parameters(), models[0].parameters())}


def zero_by_hand(stage):
    zero = Zero(noisy_gpt(TIED, frozen_layer=1), adamw, stage=stage, weight_decay=0.1)
    for step in range(STEPS):
        zero.backward(zero.model(*mine(step)))
        zero.step()
    state = zero.state_dict()
    return [state[name] for name, _ in zero.model.named_parameters()]


def zero_redundancy():
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = noisy_gpt(TIED, frozen_layer=1)
    opt = ZeroRedundancyOptimizer(
        decay_groups(model, 0.1), optimizer_class=torch.optim.AdamW, lr=0.01, foreach=False
    )
    train(nn.parallel.DistributedDataParallel(model), opt)
    return {"Zero stage 1": difference(zero_by_hand(1), model.parameters())}


def fsdp2():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = noisy_gpt(TIED, frozen_layer=1)
    mesh = init_device_mesh("cpu", (td.get_world_size(),))
    for module in [*model.blocks, model]:
        fully_shard(module, mesh=mesh)
    train(model, adamw(decay_groups(model, 0.1)))
    want = [p.full_tensor() for p in model.parameters()]
    return {f"Zero stage {stage}": difference(zero_by_hand(stage), want) for stage in (2, 3)}


class PlainBlock(nn.Module):
    """A block of our GPT in torch's modules, queries, keys and values apart, as parallelize_module wants them."""

    def __init__(self, c):
        super().__init__()
        self.head_width = c.head_width
        self.norm1, self.norm2 = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.q, self.k, self.v, self.out = (nn.Linear(c.width, c.width) for _ in range(4))
        self.up, self.down = nn.Linear(c.width, c.hidden), nn.Linear(c.hidden, c.width)

    def forward(self, x):
        y = self.norm1(x)
        q, k, v = (f(y) for f in (self.q, self.k, self.v))
        q, k, v = (a.unflatten(-1, (-1, self.head_width)).transpose(1, 2) for a in (q, k, v))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(a.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class PlainGPT(nn.Module):
    """Our GPT, untied, with learned positions, in torch's modules."""

    def __init__(self, c):
        super().__init__()
        self.tokens = nn.Embedding(c.vocab_size, c.width)
        self.positions = nn.Parameter(torch.empty(c.context, c.width))
        self.blocks = nn.ModuleList(PlainBlock(c) for _ in range(c.n_layers))
        self.norm, self.head = nn.LayerNorm(c.width), nn.Linear(c.width, c.vocab_size, bias=False)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def to_plain(state) -> dict:
    """Our state dict in PlainGPT's names."""
    renamed = {}
    for name, value in state.items():
        name = name.replace("mlp.", "").replace("attention.", "")
        if ".qkv." in name:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace("qkv", letter)] = part
        else:
            renamed[name] = value
    return renamed


def from_plain(state, names) -> dict:
    """PlainGPT's state dict in the names of ours."""

    def find(name):
        short = name.replace("mlp.", "").replace("attention.", "")
        if ".qkv." in short:
            return torch.cat([state[short.replace("qkv", letter)] for letter in "qkv"])
        return state[short]

    return {name: find(name) for name in names}


def dtensor_plan(sequence):
    """For a block, and for the ends of the model: what torch's tutorial on tensor parallelism does."""
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor import parallel as tp

    stream = Shard(1) if sequence else Replicate()
    column = tp.ColwiseParallel(input_layouts=stream)
    row = tp.RowwiseParallel(output_layouts=stream)
    block = dict.fromkeys("qkv", column) | {"up": column, "out": row, "down": row}
    ends = {
        "tokens": tp.RowwiseParallel(input_layouts=Replicate(), output_layouts=Replicate()),
        "head": tp.ColwiseParallel(
            input_layouts=stream, output_layouts=Shard(-1), use_local_output=False
        ),
    }
    if sequence:
        block |= {"norm1": tp.SequenceParallel(), "norm2": tp.SequenceParallel()}
        ends |= {"norm": tp.SequenceParallel()}
        ends["blocks.0"] = tp.PrepareModuleInput(
            input_layouts=(Replicate(),), desired_input_layouts=(Shard(1),), use_local_output=True
        )
    return block, ends


def dtensor(sequence):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor.parallel import loss_parallel, parallelize_module

    whole = noisy_gpt(UNTIED, frozen_layer=1)
    plain = PlainGPT(UNTIED).double()
    plain.load_state_dict(to_plain(whole.state_dict()))
    plain.blocks[1].up.weight.requires_grad_(False)
    mesh = init_device_mesh("cpu", (td.get_world_size(),))
    block, ends = dtensor_plan(sequence)
    for b in plain.blocks:
        parallelize_module(b, mesh, block)
    parallelize_module(plain, mesh, ends)
    tensor = TensorParallel(sequence=sequence)
    ours = ShardedGPT(whole, tensor)
    opts = [adamw(decay_groups(m, 0.1)) for m in (plain, ours)]
    apart = 0.0
    for step in range(STEPS):
        x, y = batch(step)  # all ranks work on the same tokens
        for opt in opts:
            opt.zero_grad()
        with loss_parallel():
            theirs = F.cross_entropy(plain(x).flatten(0, 1), y.flatten())
            theirs.backward()
        theirs = theirs.full_tensor() if isinstance(theirs, DTensor) else theirs
        loss = ours(x, y)
        loss.backward()
        ours.sum_whole_gradients()
        apart = max(apart, abs(loss.item() - theirs.item()))
        for opt in opts:
            opt.step()
    full = {
        k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in plain.state_dict().items()
    }
    trained = noisy_gpt(UNTIED, frozen_layer=1)
    trained.load_state_dict(from_plain(full, trained.state_dict()))
    want = ShardedGPT(trained, tensor).parameters()
    name = "sequence" if sequence else "tensor"
    return {f"{name} loss": apart, name: difference(ours.parameters(), want)}


class Logits(nn.Module):
    """A stage of torch's pipeline: as our stage, but the last one gives logits, for torch calls the loss itself."""

    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def forward(self, x):
        s = self.stage
        if not s.is_last:
            return s(x)
        from bigmodel_lab.ops.torch import backend

        ops = backend(s.ops)
        for block in s.blocks:
            x = block(x, ops)
        return ops.linear(s.norm(x, ops), s.head)


def pipelining(name, chunks=1):
    from torch.distributed import pipelining as theirs

    rank, ranks = td.get_rank(), td.get_world_size()
    cuts = cut_layers(UNTIED.n_layers, ranks * chunks)
    places = [k * ranks + rank for k in range(chunks)]

    def stages():
        return nn.ModuleList(
            ShardedGPT(noisy_gpt(UNTIED, frozen_layer=1), layers=cuts[i]) for i in places
        )

    def loss_fn(logits, targets):
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    mine_, torchs = stages(), stages()
    wrapped = [
        theirs.PipelineStage(Logits(s), i, ranks * chunks, torch.device("cpu"))
        for s, i in zip(torchs, places, strict=True)
    ]
    make = {
        "gpipe": theirs.ScheduleGPipe,
        "1f1b": theirs.Schedule1F1B,
        "interleaved": theirs.ScheduleInterleaved1F1B,
    }[name]
    run = make(wrapped if chunks > 1 else wrapped[0], MICROS, loss_fn=loss_fn)
    pipe = Pipeline(mine_, row=(T, UNTIED.width), dtype=torch.float64, name=name, micros=MICROS)
    opts = [adamw(decay_groups(m, 0.1)) for m in (mine_, torchs)]
    apart = 0.0
    for step in range(STEPS):
        x, y = batch(step)
        for opt in opts:
            opt.zero_grad()
        loss = pipe.step(x, y).item()
        losses = []
        run.step(
            *((x,) if rank == 0 else ()),
            **({"target": y, "losses": losses} if rank == ranks - 1 else {}),
        )
        if losses:
            apart = max(apart, abs(loss - sum(l.item() for l in losses) / MICROS))
        for opt in opts:
            opt.step()
    return {f"{name} loss": apart, name: difference(mine_.parameters(), torchs.parameters())}


def beside():
    """On every rank: all comparisons."""
    warnings.simplefilter("ignore")  # torch 2.13 deprecates some of what its own code calls
    seen = data_parallel() | accumulation() | zero_redundancy() | fsdp2()
    seen |= dtensor(False) | pipelining("gpipe") | pipelining("1f1b")
    if td.get_world_size() == 2:
        seen |= dtensor(True) | pipelining("interleaved", 2)
    return seen


@pytest.fixture(scope="module", params=[2, 4], ids="{} ranks".format)
def seen(request):
    return dist.run(beside, ranks=request.param, timeout_s=200)


NAMES = [
    "DataParallel",
    "OverlappedDataParallel",
    "no_sync",
    "Zero stage 1",
    "Zero stage 2",
    "Zero stage 3",
    "tensor",
    "tensor loss",
    "sequence",
    "sequence loss",
    "gpipe",
    "gpipe loss",
    "1f1b",
    "1f1b loss",
    "interleaved",
    "interleaved loss",
]


@pytest.mark.parametrize("name", NAMES)
def test_ours_and_torchs_train_the_same(seen, name):
    if len(seen) == 4 and name.split()[0] in ("sequence", "interleaved"):
        assert name not in seen[0]  # on 2 ranks only
        return
    assert max(rank[name] for rank in seen) < (LOSSES if "loss" in name else PARAMETERS)
