"""Which layouts work: said from the sizes alone, with the way out, and what is said to work does."""

import subprocess
import sys

import pytest

from bigmodel_lab.dist.possible import require_possible
from bigmodel_lab.models import GPTConfig
from bigmodel_lab.train import Layout

GPT2, LLAMA = (f(280, 16, 4, 48, 6) for f in (GPTConfig.gpt2, GPTConfig.llama))


@pytest.mark.parametrize(
    ("config", "layout", "options", "message"),
    [
        (GPT2, Layout(tp=4), {}, "tp=4 ranks cannot share n_heads=6 .*: use tp=1, 2, 3, 6."),
        (LLAMA, Layout(tp=3), {}, "tp=3 ranks cannot share hidden=128 .*: use tp=1, 2."),
        (LLAMA, Layout(pp=5), {}, "pp=5 stages need 5 layers, one each, and n_layers=4"),
        (LLAMA, Layout(pp=2), {"chunks": 3}, "pp=2 stages of chunks=3 need 6 layers"),
        (GPT2, Layout(pp=2, zero=2), {}, "tied embedding .* use zero=1"),
        (LLAMA, Layout(tp=2, zero=2), {"sequence": True}, "sequence=False"),
        (LLAMA, Layout(pp=2, zero=3), {"chunks": 2}, "zero=3 needs chunks=1"),
        (LLAMA, Layout(), {"chunks": 2}, "chunks=2 interleaves .* pp=1 has none"),
        (LLAMA, Layout(tp=2), {"sequence": True, "positions": 7}, "use a context of 8"),
    ],
)
def test_what_does_not_work(config, layout, options, message):
    with pytest.raises(ValueError, match=message):
        require_possible(config, layout, **options)


@pytest.mark.parametrize(
    ("config", "layout", "options"),
    [
        (GPT2, Layout(dp=3, tp=6, pp=4, zero=1), {"sequence": True, "positions": 12}),
        (LLAMA, Layout(dp=2, tp=2, pp=4, zero=3), {"positions": 7}),
        (LLAMA, Layout(pp=2, zero=2), {"chunks": 2}),
        (LLAMA, Layout(zero=2), {"sequence": True, "positions": 7}),
    ],
)
def test_what_works(config, layout, options):
    require_possible(config, layout, **options)


def test_it_needs_no_torch():
    code = "import sys; import bigmodel_lab.dist.possible; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
