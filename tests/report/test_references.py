"""References have one form, and every adapter method can be cited."""

from __future__ import annotations

import re

import pytest

from pennyweight.budget.methods import METHODS
from pennyweight.report.references import REFERENCES, citation, method_keys

_AUTHOR = r"[^\W\d_][\w '-]+, (?:[A-Z]\.(?:-[A-Z]\.)?(?: [A-Z]\.)*)"


@pytest.mark.parametrize("key", REFERENCES)
def test_every_entry_is_authors_year_title_venue(key: str) -> None:
    entry = REFERENCES[key].entry
    names = rf"{_AUTHOR}(?:; {_AUTHOR})*(?:; and {_AUTHOR})?"
    assert re.fullmatch(rf"{names} \d{{4}}\. [^.]+\. (?:In \*|\*|arXiv:|https://).+\.", entry)
    assert ".." not in entry


def test_citations_name_up_to_three_authors() -> None:
    assert citation(["wilson"]) == "(Wilson 1927)"
    assert citation(["1711.05101", "1503.02531"]) == (
        "(Hinton, Vinyals, and Dean 2015; Loshchilov and Hutter 2019)"
    )
    assert citation(["2106.09685"]) == "(Hu et al. 2022)"


@pytest.mark.parametrize("method", METHODS)
def test_every_adapter_methods_paper_can_be_cited(method: str) -> None:
    assert method_keys(method)
