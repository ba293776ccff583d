"""The words of the demo model, and the rows of its token table."""

import pytest

from demo.prompts import COLOURS, OBJECTS, TABLE_ROWS, rows, tokens


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("", (0, 9)),
        ("   ", (0, 9)),
        ("a", (0, 9)),
        ("red", (1, 9)),
        ("white", (8, 9)),
        ("apple", (0, 10)),
        ("a tree", (0, 19)),
        ("a red mushroom", (1, 17)),
        ("mushroom red", (1, 17)),
        ("An ORANGE, apple.", (2, 10)),
        ("the\nblue\thouse", (5, 16)),
    ],
)
def test_a_prompt_is_a_row_of_colours_and_a_row_of_objects(prompt, expected):
    assert tokens(prompt) == expected


def test_every_row_of_the_table_has_one_meaning():
    colours = {tokens(colour)[0] for colour in ("", *COLOURS)}
    objects = {tokens(thing)[1] for thing in ("", *OBJECTS)}
    assert sorted(colours) + sorted(objects) == list(range(TABLE_ROWS))
    assert rows(3, 7) == tokens(f"{COLOURS[2]} {OBJECTS[6]}")


@pytest.mark.parametrize(
    "prompt, message",
    [
        ("a red zebra", r"got 'zebra' in 'a red zebra'"),
        ("reddish", r"got 'reddish' in 'reddish'"),
        ("red blue", r"got 'blue' twice or beside another of its kind in 'red blue'"),
        ("red red ball", r"got 'red' twice or beside another of its kind"),
        ("a ball and a cup", r"got 'and'"),
        ("ball cup", r"got 'cup' twice or beside another of its kind"),
        ("red_ball", r"got 'red_ball'"),
        ("(ball:1.2)", r"got '\(ball:1'"),
    ],
)
def test_an_unknown_word_is_named_beside_the_known_ones(prompt, message):
    with pytest.raises(ValueError, match=message) as error:
        tokens(prompt)
    assert all(word in str(error.value) for word in COLOURS + OBJECTS)
