"""What guidance does, as pictures: colours, outlines, captions, and a run in every style."""

import golden_images
import numpy as np
import pytest
import torch
from pictures import STYLES, GuidedRun, NoSuchStep, RecordedStep, message, preview
from pictures.arrays import fitted, images_of, picture_of
from pictures.heat import enlarged, heat, outlined
from pictures.layout import Tile, sheet
from pictures.preview import choose
from pictures.text import extent, font, wrapped
from PIL import Image, ImageFont


def recorded(number, sigma, *, items=1, frames=1, size=(12, 16), strength=0.05):
    """A step whose attention is a hill over 4 x 4 blocks, which moves with the item and rises with the frame."""
    rows, columns = torch.arange(size[0]) // 4 * 4, torch.arange(size[1]) // 4 * 4
    hills = [
        [
            (-((rows[:, None] - 4) ** 2 + (columns - 4 - 4 * item) ** 2) / (20 * (frame + 1))).exp()
            for frame in range(frames)
        ]
        for item in range(items)
    ]
    attention = torch.stack([torch.stack(row) for row in hills])
    attention = attention / attention.mean((-1, -2), keepdim=True)
    return RecordedStep(number, sigma, attention.half(), (attention > 1).to(torch.uint8) * 255, strength)


def run_of(steps=4, **how):
    sigmas = [14.6, 6.3, 2.1, 0.7, 0.2, 0.05][:steps]
    return GuidedRun(
        steps + 1, [recorded(i + 1, sigma, strength=0.03 * (i + 1), **how) for i, sigma in enumerate(sigmas)]
    )


def image_of(height, width, count=1):
    """Pictures that grow brighter to the right, each bluer than the one before."""
    image = torch.zeros(count, height, width, 3)
    image[..., 0] = torch.linspace(0, 1, width)
    image[..., 2] = torch.linspace(0, 1, count)[:, None, None]
    return image


def as_array(images):
    return (images * 255).round().to(torch.uint8).numpy()


# --- colours and outlines ---


def test_heat_has_the_ends_and_the_middle_of_viridis():
    colours = heat(np.array([[0, 2, 4, 9, -1]]), 4)
    assert colours.dtype == np.uint8
    assert colours[0].tolist() == [[68, 1, 84], [33, 144, 141], [253, 231, 37], [253, 231, 37], [68, 1, 84]]


def test_heat_takes_infinity_as_bright_and_nan_as_dark():
    assert heat(np.array([[np.inf, np.nan]]), 2)[0].tolist() == [[253, 231, 37], [68, 1, 84]]


def test_heat_grows_lighter_for_every_kind_of_eye():
    colours = heat(np.linspace(0, 1, 200)[None], 1)[0].astype(float) / 255
    linear = colours**2.2
    # What red-blind and green-blind eyes see of red, green and blue (Vienot, Brettel and Mollon, 1999).
    red_blind = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    green_blind = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    for eyes in (np.eye(3), red_blind, green_blind):
        luminance = linear @ eyes.T @ [0.2126, 0.7152, 0.0722]
        assert (np.diff(luminance) > 0).all()


def test_enlarged_makes_blocks():
    values = np.array([[1, 2], [3, 4]])
    assert enlarged(values, (4, 6)).tolist() == [[1, 1, 1, 2, 2, 2]] * 2 + [[3, 3, 3, 4, 4, 4]] * 2


def test_outlined_draws_along_the_edge_and_nowhere_else():
    ground = np.full((40, 60, 3), 90, dtype=np.uint8)
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 20:60] = True
    changed = (outlined(ground, mask) != ground).any(-1)
    rows, columns = np.nonzero(changed)
    assert {rows.min(), rows.max()} <= set(range(7, 34)) and columns.min() >= 17
    assert changed[10, 40] and changed[20, 20] and not changed[20, 40]
    assert not changed[14:26, 59].any(), "the border of the picture is no edge of the mask"
    assert (outlined(ground, np.ones_like(mask)) == ground).all()
    assert (ground == 90).all(), "the picture that was given stays as it is"


# --- words ---


def test_wrapped_keeps_every_word_within_the_width():
    text = "one two three four five\nsix"
    lines = wrapped(text, 14, 70)
    assert " ".join(lines).split() == text.split() and len(lines) > 2 and lines[-1] == "six"
    assert all(extent(line, 14)[0] <= 70 for line in lines)
    assert extent(wrapped("averyveryverylongword" * 3, 14, 70)[0], 14)[0] <= 70


@pytest.fixture
def old_pillow(monkeypatch):
    """Pillow as it was before 10.1: its own font has one size."""
    small = ImageFont.load_default_imagefont()

    def load_default():
        return small

    font.cache_clear()
    monkeypatch.setattr(ImageFont, "load_default", load_default)
    yield
    font.cache_clear()


def test_an_old_pillow_writes_with_its_small_font(old_pillow):
    assert (message("a word \u4e2d") < 100).any()
    assert (sheet([Tile(None, "a"), Tile(np.zeros((40, 40, 3), dtype=np.uint8), "b")], 2, title="t") < 100).any()
    for style in STYLES:
        preview(run_of(), style, "all")


# --- layout ---


def test_sheet_places_tiles_row_by_row_in_columns_as_wide_as_their_widest():
    red, green, blue = (np.full((h, w, 3), colour, dtype=np.uint8) for h, w, colour in
                        ((10, 20, (255, 0, 0)), (10, 20, (0, 255, 0)), (30, 40, (0, 0, 255))))  # fmt: skip
    page = sheet([Tile(red), Tile(green), Tile(blue)], 2, size=8)
    assert page.shape == (10 + 30 + 3 * 4, 40 + 20 + 3 * 4, 3)
    assert page[4 + 5, 4 + 10 + 10].tolist() == [255, 0, 0], "in the middle of its column"
    assert page[4 + 5, 4 + 40 + 4 + 10].tolist() == [0, 255, 0]
    assert page[4 + 10 + 4, 4].tolist() == [0, 0, 255]


# --- images ---


def test_picture_of_takes_grey_and_alpha():
    assert picture_of(torch.full((2, 3, 1), 0.5))[0, 0].tolist() == [128, 128, 128]
    assert picture_of(torch.tensor([[[1.0, 0.5, 0.0, 0.3]]]))[0, 0].tolist() == [255, 128, 0]
    assert picture_of(torch.tensor([[[2.0, -1.0, float("nan")]]]))[0, 0].tolist() == [255, 0, 0]


def test_fitted_keeps_the_form_and_shows_small_pictures_as_blocks():
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert (fitted(picture, 8) == picture.repeat(2, 0).repeat(2, 1)).all()
    assert fitted(np.zeros((300, 100, 3), dtype=np.uint8), 150).shape == (150, 50, 3)


def test_images_of_puts_pictures_of_different_sizes_on_white():
    images = images_of([np.zeros((2, 3, 3), dtype=np.uint8), np.zeros((4, 2, 3), dtype=np.uint8)])
    assert images.shape == (2, 4, 3, 3)
    assert images[0, 2:].eq(1).all() and images[1, :, 2].eq(1).all() and images[0, :2].eq(0).all()


# --- a run ---


def test_words_choose_among_the_steps_with_a_mask():
    run = run_of(5)
    assert [choose(run, word)[0].number for word in ("first", " Middle ", "LAST", "4")] == [1, 3, 5, 4]
    assert [step.number for step in choose(run, "all")] == [1, 2, 3, 4, 5]
    reused = run._replace(
        guided=[step._replace(attention=None, mask=None) if step.number == 5 else step for step in run.guided]
    )
    assert choose(reused, "last")[0].number == 4


def test_a_step_without_a_mask_is_refused_with_those_that_have_one():
    run = run_of(6)
    run = GuidedRun(20, [run.guided[i]._replace(number=n) for i, n in enumerate((2, 3, 4, 7, 10, 11))])
    with pytest.raises(NoSuchStep, match=r"Step 5 has no mask of its own. Of 20 steps these have: 2-4, 7, 10-11\."):
        choose(run, "5")
    with pytest.raises(NoSuchStep, match="No step of this run was guided"):
        choose(GuidedRun(4, []), "last")


@pytest.mark.parametrize("typed", ["", "lst", "0", "-1", "1.5", "1,2"])
def test_what_is_no_step_is_refused(typed):
    with pytest.raises(ValueError, match="step must be first, middle, last, all or a number from 1"):
        choose(run_of(), typed)


def test_an_unknown_style_is_refused():
    with pytest.raises(ValueError, match="style must be one of heat map, outline"):
        preview(run_of(), "oil painting", "last")


@pytest.mark.parametrize("style", ["heat map", "outline", "overlay"])
def test_there_is_a_picture_and_a_mask_for_each_step_item_and_frame(style):
    pictures, masks = preview(run_of(2, items=2, frames=3), style, "all")
    assert len(pictures) == len(masks) == 2 * 2 * 3
    first = run_of(2, items=2, frames=3).guided[0]
    assert masks[:6].eq(first.mask.flatten(0, 1) / 255).all()
    assert not pictures[0].equal(pictures[1]) and not pictures[0].equal(pictures[3])


def test_masks_have_the_images_size_and_are_blocks_of_the_latents():
    run = run_of(1, size=(12, 16))
    _, masks = preview(run, "overlay", "last", image_of(96, 128))
    assert masks.shape == (1, 96, 128)
    assert masks[0].equal((run.guided[0].mask[0, 0] / 255).repeat_interleave(8, 0).repeat_interleave(8, 1))


def test_a_contact_sheet_is_one_picture_an_item_and_a_plot_is_one():
    run = run_of(6, items=3, frames=2)
    assert preview(run, "contact sheet", "last")[0].shape[0] == 3
    assert preview(run, "plot", "last")[0].shape[0] == 1


def test_a_video_shows_the_image_of_the_frames_own_time():
    # 3 latent frames and 9 images: the first, the middle and the last one.
    video = image_of(448, 448, count=9)
    pictures, _ = preview(run_of(1, frames=3, size=(16, 16)), "outline", "last", video)
    corner = [round(picture[-30, 20, 2].item() * 8) for picture in pictures]
    assert corner == [0, 4, 8]


def test_many_pictures_are_thinned_evenly():
    run = GuidedRun(200, [recorded(i + 1, 200.0 - i, size=(4, 4)) for i in range(200)])
    pictures, masks = preview(run, "heat map", "all")
    assert len(pictures) == len(masks) == 50
    run = GuidedRun(30, [recorded(i + 1, 30.0 - i, frames=20, size=(4, 4)) for i in range(30)])
    assert len(preview(run, "heat map", "all")[0]) == 2 * 20


def test_a_large_image_is_shown_smaller_and_a_small_one_larger():
    large, _ = preview(run_of(1), "overlay", "last", image_of(1200, 2000))
    small, _ = preview(run_of(1), "overlay", "last", image_of(24, 32))
    assert 1024 < large.shape[2] < 1250 and 448 < small.shape[2] < 600


def test_attention_that_is_infinite_everywhere_is_shown():
    run = run_of(2)
    steps = [step._replace(attention=torch.full_like(step.attention, float("inf"))) for step in run.guided]
    for style in STYLES:
        assert preview(run._replace(guided=steps), style, "all")[0].isfinite().all()


def test_a_run_that_went_wrong_is_shown_all_the_same():
    run, nan = run_of(3), float("nan")
    steps = [step._replace(attention=torch.full_like(step.attention, nan), strength=nan) for step in run.guided]
    for style in STYLES:
        assert preview(run._replace(guided=steps), style, "all")[0].isfinite().all()


def test_steps_that_reused_guidance_are_in_the_plot_and_in_no_map():
    run = run_of(4)
    run = run._replace(guided=[s._replace(attention=None, mask=None) if s.number % 2 == 0 else s for s in run.guided])
    assert len(preview(run, "heat map", "all")[0]) == 2
    blue, orange = (
        (preview(run, "plot", "all")[0][0] * 255).round().eq(torch.tensor(c)).all(-1).sum()
        for c in ((0, 114, 178), (213, 94, 0))
    )
    assert orange > blue > 100


@pytest.mark.parametrize(
    ("style", "image"),
    [*((style, None) for style in STYLES), *((style, image_of(90, 120)) for style in STYLES if style != "plot")],
)
def test_looks_as_it_did(style, image):
    pictures, _ = preview(run_of(), style, "middle", image)
    name = f"{style.replace(' ', '_')}{'' if image is None else '_on_image'}"
    golden_images.check(as_array(pictures)[0], name)


def test_a_message_looks_as_it_did():
    golden_images.check(
        message("Nothing to see here yet: the sampler has not run. Queue the workflow once more."), "message"
    )


def test_golden_images_tell_pictures_apart(monkeypatch):
    monkeypatch.delenv("SAG_GOLDEN", raising=False)
    with Image.open(golden_images.FOLDER / "message.png") as kept:
        picture = np.array(kept.convert("RGB"))
    golden_images.check(picture, "message")
    picture[20:60, 30:300] = 0
    with pytest.raises(AssertionError, match="no longer looks like"):
        golden_images.check(picture, "message")
