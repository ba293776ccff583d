"""The words that the demo model knows."""

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
OBJECTS = ("apple", "ball", "cube", "cup", "donut", "duck", "house", "mushroom", "snowman", "tree")
ANY = 0  # the token of what a prompt leaves open
FILLERS = ("a", "an", "the")


def tokens(prompt: str) -> "tuple[int, int]":
    """Read a prompt such as "a red apple", "apple", "red" or "" (anything at all).

    Returns:
        The rows of the model's token table: of the colour (0 is any, 1 the first of `COLOURS`) and of the object
        (as many rows further on).

    Raises:
        ValueError: a word that is neither, or two of a kind.
    """
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
                f"prompt must be at most one colour ({', '.join(COLOURS)}) and one object ({', '.join(OBJECTS)}), "
                f"got {word!r}{twice} in {prompt!r}"
            )
    return rows(colour, thing)


def rows(colour: int, thing: int) -> "tuple[int, int]":
    """The rows of the token table for a colour and an object, counted from 1; 0 is any."""
    return colour, 1 + len(COLOURS) + thing


TABLE_ROWS = 2 + len(COLOURS) + len(OBJECTS)
