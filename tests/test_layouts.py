"""The table of token layouts, on networks that are nothing but their lists of blocks."""

from types import SimpleNamespace

import pytest
import torch
from loading import ROOT, load_package

layouts = load_package("token_layouts", ROOT / "nodes" / "adapter" / "layouts")
Cross, Joint, Keys = layouts.CrossLayout, layouts.JointLayout, layouts.KeysLayout


class Call:
    """A call of a network by a layout that is known when its first attention call is seen."""

    def __init__(self, network, latent_size, **arguments):
        self.network, self._call, self.named = network, None, {}
        self._given = network, latent_size, arguments

    def see(self, layout, queries, keys=None):
        self._call = self._call or layouts.NetworkCall(layout, *self._given)
        keys = keys or queries
        found = self._call.next(torch.zeros(1, queries, 4), torch.zeros(1, keys, 4), self.named)
        if found is None:
            return None
        first, end, _ = found.image_tokens.indices(keys)
        return found.block[1], found.grid, slice(first, end)


def network(**lists):
    blocks = {name: [None] * length if length is not None else None for name, length in lists.items()}
    return SimpleNamespace(patch_size=2, **blocks)


def test_block_numbers_count_through_all_lists():
    flux = network(double_blocks=19, single_blocks=38)
    layout = Joint(("double_blocks", "single_blocks"))
    assert list(layout.blocks(flux)) == [str(number) for number in range(57)]
    blocks, note = layout.automatic(flux)
    assert [number for _, number in blocks] == [21, 26, 30, 35] and note is None


@pytest.mark.parametrize(
    "depth, chosen", [(1, [0]), (2, [0, 1]), (3, [1]), (6, [2, 3]), (12, [4, 5, 6, 7]), (30, [11, 13, 16, 18])]
)
def test_automatic_blocks_lie_in_the_middle_third(depth, chosen):
    blocks, _ = Cross().automatic(network(blocks=depth))
    assert [number for _, number in blocks] == chosen
    assert all(depth // 3 <= number < depth - depth // 3 for number in chosen)


def test_a_network_without_blocks_says_so():
    assert Cross().automatic(network(blocks=0)) == ((), "this model has no self-attention")


def test_text_first_and_last_patches_padded():
    call = Call(network(blocks=4), (9, 13))
    assert call.see(Joint(), 12 + 35) == (0, (5, 7), slice(12, 47))
    assert call.see(Joint(), 12 + 35) == (1, (5, 7), slice(12, 47))


def test_calls_that_do_not_read_text_and_image_are_not_counted():
    layout, call = Joint(), Call(network(blocks=4), (8, 8))
    seen = [call.see(layout, *lengths) for lengths in ((20,), (16,), (20, 7), (20,))]
    assert [found and found[0] for found in seen] == [0, None, None, 1]


def test_refiners_come_before_the_first_block_however_long_their_sequences():
    layout = Joint(prelude=("text_refiner", "image_refiner"), prelude_with=(("ref_latents", "reference_refiner"),))
    parts = network(blocks=4, text_refiner=2, image_refiner=2, reference_refiner=1)
    for arguments, before in (({}, 4), ({"ref_latents": [torch.zeros(1, 4, 8, 8)]}, 5), ({"ref_latents": []}, 4)):
        call = Call(parts, (8, 8), **arguments)
        assert [call.see(layout, 100) for _ in range(before)] == [None] * before
        assert call.see(layout, 100) == (0, (4, 4), slice(84, 100))


def test_reference_latents_lie_before_or_behind_the_image():
    references = [torch.zeros(1, 4, 6, 8), torch.zeros(1, 4, 3, 5)]  # 12 and 6 tokens
    for argument in (references, torch.zeros(1, 4, 6, 12), torch.zeros(1, 18, 32)):
        arguments = dict(network=network(blocks=4), latent_size=(8, 8), ref=argument)
        for layout, length, first in (
            (Joint(behind=("ref",)), 5 + 16 + 18, 5),
            (Joint(before=("ref",)), 5 + 18 + 16, 23),
            (Joint(image="first", behind=("ref",)), 16 + 18 + 5, 0),
            (Joint(image="first", before=("ref",)), 18 + 16 + 5, 18),
            (Cross(before=("ref",)), 18 + 16, 18),
            (Cross(before=("ref",), others=True), 18 + 16 + 9, 18),
        ):
            assert Call(**arguments).see(layout, length)[2] == slice(first, first + 16)
        assert Call(**arguments).see(Cross(before=("ref",)), 18 + 16 + 9) is None
        assert Call(**arguments).see(Joint(before=("ref",)), 18 + 16) is None  # no text: some other call


def test_reference_latents_that_the_network_has_no_use_for_make_no_tokens():
    layout = Cross(before=("ref",), needs=("reader", "method"))
    for parts, arguments, first in (({"reader": None}, {}, 0), ({"reader": None}, {"method": "index"}, 4), ({}, {}, 0)):
        call = Call(network(blocks=4, **parts), (8, 8), ref=torch.zeros(1, 4, 4, 4), **arguments)
        assert call.see(layout, 16 + first)[2] == slice(first, first + 16)


@pytest.mark.parametrize("multiple, padding", [(None, 0), (16, 0), (10, 4), (32, 16)])
def test_an_image_that_is_filled_up_to_a_multiple(multiple, padding):
    call = Call(network(blocks=4), (8, 8))
    call.network.multiple = multiple
    assert call.see(Joint(multiple="multiple"), 7 + 16 + padding)[2] == slice(7, 23)


def numbers(call, layout, lengths):
    return [found and found[0] for found in (call.see(layout, *length) for length in lengths)]


def test_cross_attention_over_as_many_tokens_as_the_image_has_is_told_apart():
    call = Call(network(blocks=4), (8, 8))
    assert numbers(call, Cross(), [(16,)] * 6) == [0, None, 1, None, 2, None]


def test_calls_that_another_node_adds_are_not_counted():
    own, added = (16,), (16, 11)
    call = Call(network(blocks=4), (8, 8))
    assert numbers(call, Cross(), [own, added, added, own, added, added]) == [0, None, None, 1, None, None]
    joint, text = (27,), (27, 11)
    call = Call(network(blocks=4), (8, 8))
    assert numbers(call, Joint(), [joint, text, joint, text, joint]) == [0, None, 1, None, 2]


def test_the_number_that_the_host_names_goes_before_any_count():
    layout, call = (
        Joint(("double", "single"), prelude=("refiner",)),
        Call(network(double=3, single=4, refiner=1), (8, 8)),
    )
    seen = []
    for named in ({}, *({"block_type": kind, "block_index": i} for kind, i in (("double", 2), ("single", 0)))):
        call.named = named
        seen += numbers(call, layout, [(27,), (27,)])
    assert seen == [None, 0, 2, 2, 3, 3]
    call = Call(network(blocks=4), (8, 8))
    call.named = {"block_type": "single", "block_index": 2}
    assert numbers(call, Joint(), [(27,)]) == [2]  # the only list of blocks


def test_streams_of_a_models_own_that_run_between_its_blocks():
    layout = layouts.LAYOUTS["comfy.ldm.wan.model.VaceWanModel"]
    parts = network(blocks=3)
    parts.vace_layers_mapping = {0: 0, 2: 1}
    call = Call(parts, (8, 8), vace_context=torch.zeros(1, 2, 96, 1, 8, 8))
    block = [(16,), (16, 11)]
    assert numbers(call, layout, block * 7) == [0, None, *[None] * 4, 1, None, 2, *[None] * 5]


def test_keys_that_hold_text_beside_the_image():
    call = Call(network(blocks=4), (8, 8))
    assert call.see(Keys(image="first"), 16, 20) == (0, (4, 4), slice(0, 16))
    assert call.see(Keys(image="first"), 16, 16) is None
    call = Call(network(blocks=4), (8, 8), ref=torch.zeros(1, 1, 32))
    assert call.see(Keys(behind=("ref",)), 17, 25) == (0, (4, 4), slice(8, 24))


@pytest.mark.parametrize(
    "patch, size, grid",
    [
        ((1, 2, 2), (3, 9, 13), (3, 5, 7)),
        ((1, 2, 2), (9, 13), (5, 7)),
        (("frames", "side", "side"), (5, 9, 13), (3, 3, 5)),
        ("patch_size", (3, 9, 13), (3, 5, 7)),
        ((1, 1, 1), (3, 9, 13), (3, 9, 13)),
    ],
)
def test_the_grid_of_images_and_videos(patch, size, grid):
    call = Call(network(blocks=4), size)
    call.network.frames, call.network.side = 2, 3
    tokens = grid[0] * grid[1] * (grid[2] if len(grid) == 3 else 1)
    assert call.see(Cross(patch=patch), tokens) == (0, grid, slice(0, tokens))


def test_an_argument_that_changes_the_sequence_in_unknown_ways_hides_the_call():
    layout = Joint(unknown_with=("image_cond",))
    assert Call(network(blocks=4), (8, 8), image_cond=torch.zeros(1)).see(layout, 20) is None
    assert Call(network(blocks=4), (8, 8), image_cond=None).see(layout, 20) is not None


def test_only_the_very_class_of_a_line_is_known():
    line = "comfy.ldm.flux.model.Flux"
    known = type("Flux", (torch.nn.Module,), {"__module__": "comfy.ldm.flux.model"})
    assert layouts.layout_for(known()) is layouts.LAYOUTS[line]
    assert layouts.layout_for(type("Variant", (known,), {"__module__": "somewhere"})()) is None
