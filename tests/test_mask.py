import pytest
import torch

from sag_core import attention_mask, upsample_map


def test_tokens_are_laid_out_row_by_row_and_doubled():
    enlarged = upsample_map(torch.tensor([[1.0, 2, 3, 4, 5, 6]]), (2, 3), (4, 6))
    assert enlarged[0, 0].tolist() == [
        [1, 1, 2, 2, 3, 3],
        [1, 1, 2, 2, 3, 3],
        [4, 4, 5, 5, 6, 6],
        [4, 4, 5, 5, 6, 6],
    ]


def test_a_grid_that_ceil_divides_the_latent():
    enlarged = upsample_map(torch.arange(30.0)[None], (5, 6), (33, 47))
    assert enlarged.shape == (1, 1, 33, 47)
    for row in range(33):
        for column in range(47):
            assert enlarged[0, 0, row, column] == (row * 5 // 33) * 6 + column * 6 // 47


def test_frames_keep_to_themselves():
    enlarged = upsample_map(torch.arange(8.0)[None], (2, 2, 2), (2, 4, 2))
    assert enlarged[0, 0, 0, :, 0].tolist() == [0, 0, 2, 2]
    assert enlarged[0, 0, 1, :, 1].tolist() == [5, 5, 7, 7]


@pytest.mark.parametrize(
    "grid, size, message",
    [
        ((2, 4), (4, 8), r"grid must hold 6 tokens, got \(2, 4\)"),
        ((2, 3), (1, 4, 6), "must both be"),
        ((6,), (6,), "must both be"),
        ((2, 3), (0, 6), "must both be"),
    ],
)
def test_says_what_does_not_fit(grid, size, message):
    with pytest.raises(ValueError, match=message):
        upsample_map(torch.zeros(1, 6), grid, size)


def test_above_the_threshold_is_marked_and_equal_is_not():
    received = torch.tensor([[0.5, 1.0, 1.0001, 3.0, float("nan")]])
    assert attention_mask(received).tolist() == [[0, 0, 1, 1, 0]]
    assert attention_mask(received, 0.4).tolist() == [[1, 1, 1, 1, 0]]
    assert attention_mask(received.half()).dtype == torch.float16


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf"), "1", None])
def test_threshold_must_be_a_finite_number_of_at_least_zero(threshold):
    with pytest.raises(ValueError, match="threshold must"):
        attention_mask(torch.ones(1, 4), threshold)
