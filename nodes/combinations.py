"""Reads which settings to compare: `scale=0, 0.5, 1; blur_sigma=1, 2`."""

import re
from collections.abc import Mapping
from dataclasses import fields
from itertools import product
from math import prod
from reprlib import repr as shown
from typing import Any, NamedTuple

from ..sag_core import Settings

MOST = 64  # combinations: each is a picture to be drawn
MOST_CHARACTERS = 10_000
NAMES = tuple(field.name for field in fields(Settings))
SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


class Combinations(NamedTuple):
    """Every combination, the first setting changing fastest, under a label each; and how many values that one has."""

    settings: list[dict[str, Any]]
    labels: list[str]
    columns: int


def combinations(text: str) -> Combinations:
    """Read settings with their values.

    Args:
        text: settings as `name=value, value`, separated by `;` or line ends. Names and values are those of the Advanced
            node; switches are on or off; a value that holds a comma stands in double quotes.

    Returns:
        Keyword arguments for `Settings`, for each combination.

    Raises:
        ValueError: what cannot be read, an unknown or repeated setting, a value that Settings refuses, more than 64
            combinations, more than 10000 characters. The message shows the place.
    """
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        raise ValueError(f"sweep must be text of at most {MOST_CHARACTERS} characters, got {shown(text)}")
    values: dict[str, list[tuple[str, Any]]] = {}
    for part in re.finditer(r"[^;\n]+", text):
        if not part[0].strip():
            continue
        name, equals, listed = part[0].partition("=")
        place = part.start() + len(name) - len(name.lstrip())
        if not equals:
            raise _error(text, place, f"expected name=value, value, got {shown(part[0].strip())}")
        name = name.strip()
        if name not in NAMES:
            raise _error(text, place, f"there is no setting {shown(name)}; there are {', '.join(NAMES)}")
        if name in values:
            raise _error(text, place, f"{name} is there twice; write its values behind one name")
        values[name] = [
            (word, _value(text, start, name, word))
            for word, start in _words(text, part.end() - len(listed), part.end())
        ]
    if not values:
        raise _error(text, 0, "expected settings such as scale=0, 0.5, 1; blur_sigma=1, 2, got none")
    count = prod(len(choices) for choices in values.values())
    if count > MOST:
        raise _error(text, 0, f"these are {count} combinations, and the most is {MOST}; take values away")
    # product() changes the last of its arguments fastest.
    settings, labels = [], []
    for chosen in product(*reversed(values.values())):
        named = dict(zip(values, reversed(chosen)))
        settings.append({name: value for name, (_, value) in named.items()})
        labels.append(", ".join(f"{name}={word}" for name, (word, _) in named.items()))
    return Combinations(settings, labels, len(next(iter(values.values()))))


def described(settings: Mapping[str, Any]) -> str:
    """Settings in the form that `combinations` reads."""
    return "; ".join(f"{name}={_written(value)}" for name, value in settings.items())


def _words(text: str, start: int, end: int):
    """Values between commas, each with its place in the text."""
    while start <= end:
        match = re.compile(r'(?:"[^"]*"|[^,])*').match(text, start, end)
        assert match is not None  # it matches nothing at all as well
        word = match[0]
        yield word.strip(), start + len(word) - len(word.lstrip())
        start += len(word) + 1


def _value(text: str, place: int, name: str, word: str) -> Any:
    """A value as the setting takes it, checked."""
    if not word:
        raise _error(text, place, f"{name} lacks a value here")
    if len(word) > 1 and word[0] == word[-1] == '"':
        word = word[1:-1]
    kind = type(getattr(Settings, name))
    try:
        value: Any = SWITCH[word.lower()] if kind is bool else kind(word)
    except (KeyError, ValueError):
        wanted = {bool: "on or off", int: "a whole number", float: "a number"}[kind]
        raise _error(text, place, f"{name} must be {wanted}, got {shown(word)}") from None
    try:
        Settings(**{name: value})
    except ValueError as problem:
        raise _error(text, place, str(problem)) from None
    return value


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f'"{value}"' if "," in str(value) else str(value)


def _error(text: str, place: int, problem: str) -> ValueError:
    """An error that shows the line, or as much of it as is near, and marks the place in it."""
    start = text.rfind("\n", 0, place) + 1
    where = f"line {text.count(chr(10), 0, place) + 1}, character {place - start + 1}"
    shown_from = max(start, place - 300)
    line = text[shown_from : place + 300].partition("\n")[0]
    return ValueError(f"{problem} ({where})\n{line}\n{' ' * (place - shown_from)}^")
