"""The convolutional block against torch's own convolution; masks and what is taken over them, by hand."""

import torch
from einops import rearrange
from torch.nn import functional

from slmlab.models.blocks import (
    ConvNeXt,
    TimeConvolution,
    even,
    frame_mask,
    masked_loss,
    masked_mean,
    peak,
    restore,
    standardise,
)


def test_banded_convolution_equals_torchs() -> None:
    torch.manual_seed(0)
    for kernel, length in ((7, 5), (7, 16), (3, 33)):
        layer = TimeConvolution(6, kernel)
        x = torch.randn(2, length, 6)
        weight = rearrange(layer.weight, "1 d k -> d 1 k")
        expected = functional.conv1d(
            rearrange(x, "b f d -> b d f"), weight, layer.bias, padding=kernel // 2, groups=6
        )
        torch.testing.assert_close(layer(x), rearrange(expected, "b d f -> b f d"), atol=1e-5, rtol=1e-5)


def test_padding_does_not_reach_real_frames() -> None:
    torch.manual_seed(0)
    block = ConvNeXt(8)
    x = torch.randn(1, 20, 8)
    noisy = torch.cat([x, torch.randn(1, 7, 8)], dim=1)
    alone = block(x, frame_mask(torch.tensor([20]), 20))
    together = block(noisy, frame_mask(torch.tensor([20]), 27))[:, :20]
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)


def test_mask_and_scale() -> None:
    assert frame_mask(torch.tensor([1, 3]), 3)[..., 0].tolist() == [[1, 0, 0], [1, 1, 1]]
    mel = torch.tensor([-5.0, -2.8])
    torch.testing.assert_close(standardise(mel), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(restore(standardise(mel)), mel)


def test_masked_mean_counts_real_frames_alone() -> None:
    x = torch.tensor([[[1.0], [3.0], [99.0]]])
    assert masked_mean(x, frame_mask(torch.tensor([2]), 3)).item() == 2


def test_a_loss_counts_real_frames_of_the_whole_batch() -> None:
    errors = torch.tensor([[[1.0, 3.0], [99.0, 99.0]], [[4.0, 4.0], [6.0, 6.0]]])
    assert masked_loss(errors, frame_mask(torch.tensor([1, 2]), 2)).item() == 4  # (2 + 4 + 6) / 3
    assert masked_loss(errors, torch.zeros(2, 2, 1)).item() == 0


def test_a_peak_is_of_real_frames_and_even_adds_zeros() -> None:
    x = torch.tensor([[[-3.0], [-2.0], [99.0]]])
    assert peak(x, frame_mask(torch.tensor([2]), 3)).item() == -2
    assert even(x).flatten().tolist() == [-3, -2, 99, 0]
    assert even(x[:, :2]).shape == (1, 2, 1)
