"""The examples in sag_core's docstrings give what they say."""

import doctest
import importlib

import pytest
from loading import ROOT

WITH_EXAMPLES = [path.stem for path in sorted((ROOT / "sag_core").glob("*.py")) if ">>>" in path.read_text("utf-8")]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_run(name, capsys):
    result = doctest.testmod(importlib.import_module(f"sag_core.{name}"))
    assert result.attempted > 0 and result.failed == 0, capsys.readouterr().out


def test_the_examples_that_stand_today_are_found():
    assert {"attention", "blur", "mask"} <= set(WITH_EXAMPLES)
