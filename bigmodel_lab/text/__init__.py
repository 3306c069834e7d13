"""Text as numbers: byte-pair encoding, and an n-gram language model to compare others with.

`BPE.train(text, vocab_size)` learns a tokenizer, `pretokens` shows how texts are cut into words, `NGram.fit(ids, ...)` is
the baseline that a neural language model has to beat. `bigmodel_lab.text.naive` is the same in plain Python.
"""

from pathlib import Path

from bigmodel_lab.ops._stale import forget_stale_kernels
from bigmodel_lab.text._pretokenise import pretokens
from bigmodel_lab.text.bpe import BPE
from bigmodel_lab.text.ngram import NGram

__all__ = ["BPE", "NGram", "pretokens"]

forget_stale_kernels(Path(__file__).parent)  # none is loaded before its first call
