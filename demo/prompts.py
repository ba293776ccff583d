"""The words that the demo model knows."""

from reprlib import repr as shown  # cut short: what came may be a megabyte of text

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
OBJECTS = ("apple", "ball", "cube", "cup", "donut", "duck", "house", "mushroom", "snowman", "tree")
ANY = 0  # the token of what a prompt leaves open
FILLERS = ("a", "an", "the")


def tokens(prompt: str, name: str = "prompt") -> "tuple[int, int]":
    """Read a prompt such as "a red apple", "apple", "red" or "" (anything at all).

    Args:
        prompt: at most one colour and one object.
        name: what the prompt is called in an error.

    Returns:
        The rows of the model's token table: of the colour (0 is any, 1 the first of `COLOURS`) and of the object
        (as many rows further on).

    Raises:
        ValueError: no text, a word that is neither, or two of a kind.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"{name} must be text, got {shown(prompt)}")
    colour, thing = ANY, ANY
    for word in prompt.lower().replace(",", " ").replace(".", " ").split():
        if word in FILLERS:
            continue
        if word in COLOURS and colour == ANY:
            colour = 1 + COLOURS.index(word)
        elif word in OBJECTS and thing == ANY:
            thing = 1 + OBJECTS.index(word)
        else:
            twice = " twice or beside another of its kind" if word in COLOURS + OBJECTS else ""
            raise ValueError(
                f"{name} must be at most one colour ({', '.join(COLOURS)}) and one object ({', '.join(OBJECTS)}), "
                f"got {shown(word)}{twice} in {shown(prompt)}"
            )
    return rows(colour, thing)


def rows(colour: int, thing: int) -> "tuple[int, int]":
    """The rows of the token table for a colour and an object, counted from 1; 0 is any."""
    return colour, 1 + len(COLOURS) + thing


TABLE_ROWS = 2 + len(COLOURS) + len(OBJECTS)
