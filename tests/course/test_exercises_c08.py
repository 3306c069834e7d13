"""What the exercises of chapter 8 take for right, held to torch and to the library's own n-grams and merges."""

import numpy as np
import pytest

from bigmodel_lab.course.exercises import c08
from bigmodel_lab.rng import generator


def test_gru_cell_is_torchs():
    torch = pytest.importorskip("torch")
    cell = torch.nn.GRUCell(5, 3, dtype=torch.float64)
    weights = [p.detach().numpy() for p in cell.parameters()]  # W, U, b, c
    g = generator(0, "c08 exercise")
    for _ in range(3):
        x, h = g.normal(size=5), g.normal(size=3)
        want = cell(torch.from_numpy(x)[None], torch.from_numpy(h)[None])[0].detach().numpy()
        np.testing.assert_allclose(c08.gru_cell(x, h, *weights), want, rtol=1e-12)


def test_merges_one_after_another_are_the_librarys():
    from bigmodel_lab import data
    from bigmodel_lab.text import BPE, naive, pretokens

    text = data.load("moby-dick").documents[0]
    counts = {}
    for word in map(naive.as_bytes, pretokens(text)):
        counts[word] = counts.get(word, 0) + 1
    made = []
    for _ in range(12):  # pairs as frequent as each other come later; there the two differ
        pair = c08.best_merge(list(counts), list(counts.values()))
        made.append(pair)
        counts = {naive.merge(word, pair): n for word, n in counts.items()}
    assert made == BPE.train(text, 256 + 12).merges


def test_kneser_ney_rows_sum_to_one_and_every_seen_token_is_possible():
    g = generator(0, "c08 bigram")
    C = g.poisson(0.3, size=(20, 20))
    C[:, 3] += 1
    P = c08.kneser_ney(C, 0.75)
    np.testing.assert_allclose(P.sum(axis=1), 1, rtol=1e-12)
    assert (P[:, C.sum(axis=0) > 0] > 0).all()


def test_scores_of_a_uniform_model():
    nats, perplexity, bits = c08.scores(np.full(12, np.log(1 / 256)), 12)
    np.testing.assert_allclose([nats, perplexity, bits], [8 * np.log(2), 256, 8], rtol=1e-12)
