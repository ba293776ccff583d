"""The comparison sheet and its measures."""

import math
import time

import golden_images
import pytest
import torch
from pictures import Zoom, comparison, psnr, ssim


def image(height=36, width=48, count=1, shift=0.0):
    """A pattern of rings, (count, h, w, 3)."""
    rows, columns = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    radius = (rows**2 + columns**2).sqrt()
    rings = torch.stack([0.5 + 0.5 * torch.cos(9 * radius + shift + k) for k in range(3)], -1)
    return rings.expand(count, -1, -1, -1) * torch.linspace(1, 0.5, count)[:, None, None, None]


def slow_ssim(a, b, taps=11, spread=1.5):
    """SSIM window by window, as the paper writes it."""
    weights = [
        [math.exp(-((y - taps // 2) ** 2 + (x - taps // 2) ** 2) / (2 * spread**2)) for x in range(taps)]
        for y in range(taps)
    ]
    weights = torch.tensor(weights, dtype=torch.float64)
    weights /= weights.sum()
    values = []
    for c in range(a.shape[2]):
        for y in range(a.shape[0] - taps + 1):
            for x in range(a.shape[1] - taps + 1):
                p, q = (picture[y : y + taps, x : x + taps, c].double() for picture in (a, b))
                mp, mq = (weights * p).sum(), (weights * q).sum()
                vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
                covariance = (weights * (p - mp) * (q - mq)).sum()
                values.append(
                    (2 * mp * mq + 1e-4) * (2 * covariance + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4))
                )
    return torch.stack(values).mean().item()


def test_psnr_of_known_errors():
    black = torch.zeros(5, 7, 3)
    assert psnr(black, black + 1) == pytest.approx(0)
    assert psnr(black, black + 0.1) == pytest.approx(20)
    one_pixel = black.clone()
    one_pixel[2, 3] = 1
    assert psnr(black, one_pixel) == pytest.approx(10 * math.log10(35))
    assert psnr(black, black.clone()) == math.inf


def test_ssim_is_the_papers_window_by_window():
    a, b = image(15, 18)[0], image(15, 18, shift=0.7)[0] * 0.8
    assert ssim(a, b) == pytest.approx(slow_ssim(a, b), abs=1e-9)
    assert ssim(a, a) == pytest.approx(1)
    assert ssim(a, b) == pytest.approx(ssim(b, a))


def test_ssim_of_flat_pictures_is_that_of_their_brightness():
    a, b = torch.full((12, 12, 1), 0.2), torch.full((12, 12, 1), 0.6)
    assert ssim(a, b) == pytest.approx((2 * 0.2 * 0.6 + 1e-4) / (0.04 + 0.36 + 1e-4), abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (4, 9), (10, 11), (2, 30)])
def test_ssim_of_pictures_smaller_than_its_window(size):
    a, b = torch.rand(2, *size, 3, generator=torch.Generator().manual_seed(0))
    taps = min(11, *((side - 1) // 2 * 2 + 1 for side in size))
    assert ssim(a, b) == pytest.approx(slow_ssim(a, b, taps), abs=1e-9)


def test_pictures_of_different_shapes_have_no_distance():
    for measure in (psnr, ssim):
        with pytest.raises(ValueError, match=r"same shape .*\(4, 5, 3\) and \(5, 4, 3\)"):
            measure(torch.zeros(4, 5, 3), torch.zeros(5, 4, 3))


def test_a_batch_alone_is_compared_picture_by_picture():
    batch = image(count=3)
    assert comparison([batch], ["a", "b"], metrics=True).equal(comparison(batch.split(1), ["a", "b"], metrics=True))
    assert comparison([batch]).shape[2] > 3 * 512


def shape_of(count, cell=40, batch=1, form=(40, 40), **how):
    page = comparison([torch.zeros(batch, *form, 3)] * count, cell=cell, **how)
    return tuple(page.shape[1:3])


def test_up_to_four_stand_in_a_row_and_more_in_rows_and_columns():
    gap, caption = 6, 16 + 3  # of a font of 12 pixels
    for count, columns, rows in ((1, 1, 1), (4, 4, 1), (5, 3, 2), (8, 3, 3), (16, 4, 4)):
        assert shape_of(count) == (rows * (40 + caption + gap) + gap, columns * (40 + gap) + gap)
    assert shape_of(8, columns=4) == (2 * (40 + caption + gap) + gap, 4 * (40 + gap) + gap)
    assert shape_of(2, batch=3) == (caption + 3 * (40 + gap) + gap, 2 * (40 + gap) + gap), "one caption for a batch"


def test_a_sheet_stays_within_what_a_browser_shows():
    page = comparison([torch.zeros(1, 64, 64, 3)] * 60, columns=60, cell=2048)
    assert page.shape[2] < 9000
    assert comparison([torch.zeros(90, 64, 64, 3)] * 2, cell=2048, difference=2).shape[1] < 9000


def test_pictures_stand_where_they_belong():
    colours = [torch.tensor(c).expand(1, 20, 20, 3).float() for c in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    page = comparison(colours, columns=2, cell=100)[0]
    middle = [page[h, w].tolist() for h, w in ((75, 50), (75, 160), (200, 50))]
    assert middle == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_a_difference_is_grey_where_there_is_none_and_amplified_elsewhere():
    first = torch.full((1, 64, 64, 3), 0.5)
    second = first.clone()
    second[:, :, 32:] += 0.05
    page = comparison([first, second], cell=64, difference=4)[0]
    column = page[-20]  # through the difference, below the second picture
    assert column[20].eq(1).all(), "the first picture has none"
    assert column[6 + 64 + 6 + 10, 0].item() == pytest.approx(0.5, abs=0.01)
    assert column[6 + 64 + 6 + 50, 0].item() == pytest.approx(0.5 + 0.5 * 4 * 0.05, abs=0.01)


@pytest.mark.parametrize(
    ("zoom", "inset"), [(Zoom(4, 0.1, 0.1), (-10, -10)), (Zoom(4, 0.9, 0.1), (-10, 10)), (Zoom(4, 0.1, 0.9), (30, -10))]
)
def test_a_zoom_shows_its_part_in_the_corner_that_lies_opposite(zoom, inset):
    picture = torch.zeros(1, 100, 100, 3)
    row, column = (slice(0, 25) if middle < 0.5 else slice(75, 100) for middle in (zoom.y, zoom.x))
    picture[:, row, column, 0] = 1  # all that is red lies in the part that is enlarged
    plain, zoomed = (comparison([picture], cell=100, zoom=z)[0] for z in (None, zoom))
    assert zoomed.shape == plain.shape
    y, x = inset[0] if inset[0] < 0 else inset[0] + 10, inset[1] if inset[1] < 0 else inset[1] + 10
    assert zoomed[y, x].tolist() == [1, 0, 0] and plain[y, x].tolist() == [0, 0, 0]


def test_batches_and_sizes_that_differ_are_no_error():
    images = [image(30, 40, 3), image(64, 20), image(30, 40, 2, shift=1)]
    page = comparison(images, ["a"], cell=60, difference=3, metrics=True, zoom=Zoom(3))
    assert page.ndim == 4 and page.shape[0] == 1 and page.isfinite().all() and page.min() >= 0 and page.max() <= 1


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ValueError, match="at least one image"):
        comparison([])


def test_looks_as_it_did():
    images = [image(), image(shift=0.3), image(shift=0.6) * 0.8, image(24, 24)]
    labels = ["scale=0", "scale=0.5, blur_sigma=2", "scale=1, and a label that needs more than one line"]
    page = comparison(images, labels, columns=3, cell=200, difference=3, metrics=True, zoom=Zoom(4, 0.3, 0.4))
    golden_images.check((page[0] * 255).round().to(torch.uint8).numpy(), "comparison")


def test_a_label_without_end_is_cut():
    images = [torch.rand(1, 16, 16, 3)] * 2
    started = time.process_time()
    for label in ("x" * 1_000_000, "x " * 500_000):
        assert comparison(images, [label], cell=64).shape[1] < 2000
    assert time.process_time() - started < 2
