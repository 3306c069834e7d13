"""A convolutional network: filters that slide over the image, each block followed by a quarter as many pixels.

    x_0 = images,    x_l = relu(maxpool2(conv(x_{l-1}; W_l, b_l)))  for l = 1 .. L,    logits = flatten(x_L) W^T + b

The filters see I x I pixels, I odd, with a border of zeros, so that the image keeps its size until it is pooled; an odd last
row or column is dropped then. The largest of four is taken before relu and not after, as is more usual: both give the same,
since relu keeps the order, and there is a quarter as much to do.
Source: LeCun, Bottou, Bengio and Haffner (1998), Proc. IEEE 86:2278-2324, section II; relu and the largest value: Krizhevsky,
Sutskever and Hinton (2012), NeurIPS; initial weights: He et al. (2015), arXiv:1502.01852, eq. 10. Told in chapter 7.
Shapes: N images, C_0 channels of H x W pixels in, C_l channels of (H // 2^l) x (W // 2^l) after block l;
W_l (C_l, C_{l-1}, I, I), b_l (C_l,); W (classes, pixels and channels of x_L).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from bigmodel_lab import rng
from bigmodel_lab.errors import require_in_range
from bigmodel_lab.ops.torch import backend


class CNN(nn.Module):
    """A convolutional network whose operations are our numba kernels or torch's own.

    Parameters
    ----------
    channels : sequence of int   C_0, ..., C_L: [1, 16, 32] has two blocks, for images with one channel
    image : (int, int)           H, W in pixels; each block needs at least 2 x 2
    classes : int
    kernel : int                 I, odd
    ops : "torch" or "numba"     which kernels compute it; the parameters and their names do not depend on it
    seed : int                   of the initial weights; equal seeds give equal weights, whatever ran before

    The parameters are convs.0.weight, convs.0.bias, ..., head.weight, head.bias; biases start at 0. torch's global random
    generator is neither read nor changed. Raises ValueError for sizes that do not fit.
    """

    def __init__(
        self,
        channels: Sequence[int] = (1, 16, 32),
        image: tuple[int, int] = (28, 28),
        classes: int = 10,
        kernel: int = 3,
        ops: str = "torch",
        *,
        seed: int = 0,
    ):
        super().__init__()
        if len(channels) < 2:
            raise ValueError(
                f"channels must name those of the image and of at least one block, got {list(channels)}."
            )
        for i, c in enumerate(channels):
            require_in_range(f"channels[{i}]", c, 1)
        require_in_range("classes", classes, 1)
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that a filter has a middle, got {kernel}.")
        blocks = len(channels) - 1
        if min(image) < 2**blocks:
            raise ValueError(
                f"{blocks} blocks halve the image {blocks} times, so it needs at least {2**blocks} x {2**blocks} pixels, "
                f"got {image[0]} x {image[1]}."
            )
        backend(ops)  # raises for an unknown name
        self.ops = ops  # the name, not the functions: a model can then be pickled and sent to ranks
        self.channels, self.image, self.kernel = tuple(channels), tuple(image), kernel
        self.convs = nn.ModuleList(
            nn.utils.skip_init(nn.Conv2d, c_in, c_out, kernel, padding=kernel // 2)
            for c_in, c_out in pairwise(channels)
        )
        H, W = image
        pixels = (H >> blocks) * (W >> blocks)
        self.head = nn.utils.skip_init(nn.Linear, channels[-1] * pixels, classes)
        with torch.no_grad():
            for name, p in self.named_parameters():
                if name.endswith("bias"):
                    p.zero_()
                else:
                    gain = (
                        1.0 if name == "head.weight" else 2.0
                    )  # relu lets through half: twice the variance
                    w = rng.generator(seed, "cnn", name).standard_normal(p.shape)
                    p.copy_(torch.from_numpy(w * (gain / p[0].numel()) ** 0.5))

    def features(self, x) -> list[torch.Tensor]:
        """Return x_0 (N, C_0, H, W), x_1, ..., x_L, for x of that shape or, with one channel, (N, H, W).

        Raises ValueError if the images have another size than the model was made for.
        """
        ops = backend(self.ops)
        if x.ndim == 3:
            x = x[:, None]
        if x.shape[1:] != (self.channels[0], *self.image):
            want = ", ".join(map(str, (self.channels[0], *self.image)))
            raise ValueError(f"x must have shape (N, {want}), got {tuple(x.shape)}.")
        maps = [x]
        for conv in self.convs:
            x = ops.conv2d(x, conv.weight, conv.bias, padding=self.kernel // 2)
            x = ops.relu(ops.maxpool2d(x, 2))
            maps.append(x)
        return maps

    def forward(self, x) -> torch.Tensor:
        """Return the logits (N, classes)."""
        last = self.features(x)[-1].flatten(1)
        return backend(self.ops).linear(last, self.head.weight, self.head.bias)

    def loss(self, x, targets) -> torch.Tensor:
        """Return the mean cross-entropy in nats, a scalar, of integer targets (N,)."""
        return backend(self.ops).softmax_cross_entropy(self(x), targets)
