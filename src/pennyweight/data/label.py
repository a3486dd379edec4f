"""Turn the value of a label column into the index of a class, or the indices of several.

A value is looked up by its name: 1, "1" and 1.0 are the label "1", true is the label "true". Only
where no class is called by a number is a number taken as the index of a class.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Literal

from pennyweight.data.shown import listed, shortened, shown
from pennyweight.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pennyweight.data.read import Columns

__all__ = ["UNLABELLED", "BadRow", "LabelParser", "Task", "flag_of", "label_name", "split_labels"]

# Whether each row has exactly one label, or any number of them.
Task = Literal["single-label", "multi-label"]

UNLABELLED = -1
# A longer row of digits is a name: Python refuses to convert one of thousands of digits.
_INTEGER = re.compile(r"[-+]?\d{1,300}")
_NUMBER = re.compile(r"[-+]?(\d{1,300}(\.\d*)?|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_WHOLE_NUMBER = re.compile(r"([-+]?\d+)\.0+")
_FLAGS = {"0": False, "1": True, "false": False, "true": True}
_SEPARATORS = "|;,"


class BadRow(ValueError):  # noqa: N818 - a verdict that `ingest` reports or records
    """A row that cannot be used; the message gives the reason in a few words."""


def label_name(value: object) -> str | None:
    """Return the name of the class that a value stands for; None for a value that is no label.

    Whole numbers have the same name whether they are an integer, a float or text; true and false
    are "true" and "false". Other numbers are their text.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        text = value.strip()
        whole = _WHOLE_NUMBER.fullmatch(text)
        return whole[1] if whole else text
    return None


def split_labels(text: str, separator: str | None) -> list[str]:
    """Return the names that a separator joins, without spaces around them and without empty ones.

    Args:
        text: the names; empty for no label.
        separator: None if the text is a single name.
    """
    parts = [text] if separator is None else text.split(separator)
    return [part.strip() for part in parts if part.strip()]


def flag_of(value: object) -> bool | None:
    """Return the meaning of 0, 1, true or false as a number or text; None for any other value."""
    return _FLAGS.get((label_name(value) or "").casefold())


class LabelParser:
    """Looks up the classes that the values of a file stand for.

    Args:
        labels: class names, in the order of their indices.
        separator: joins several names in one text; None if a text is a single name.
        class_names: the file's own names of the integers in its label column; () if it has none.
        first_class: the number in the file that stands for the first class, if labels are indices.
        name: the source's name in messages.

    Raises:
        DataError: the file's own class names contradict `labels`.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        *,
        separator: str | None = None,
        class_names: tuple[str, ...] = (),
        first_class: int = 0,
        name: str,
    ) -> None:
        self._labels = labels
        self._separator = separator
        self._first_class = first_class
        self._are_numbers = any(_NUMBER.fullmatch(label) for label in labels)
        self._are_defined = bool(class_names) or first_class != 0
        self._indices = _spellings(labels, None if self._are_numbers else first_class)
        if class_names:
            self._indices |= _indices_by_class_name(class_names, labels, name)

    def index(self, value: object) -> int:
        """Return the index of the class that a value stands for.

        Raises:
            BadRow: it stands for none.
        """
        # Compare classes exactly, because True would otherwise be looked up as 1.
        if value.__class__ is int or value.__class__ is str:
            index = self._indices.get(value)
            if index is not None:
                return int(index)
        if value is None:
            raise BadRow("no label")
        # A number that is no integer is never an index: it may be a grade or a probability.
        is_text = isinstance(value, str) and not self._are_numbers
        name = str(value).strip() if is_text else label_name(value)
        if name is not None and (not isinstance(value, float) or self._are_numbers):
            for spelling in (name, name.casefold()):
                if (index := self._indices.get(spelling)) is not None:
                    return index
        raise BadRow(self._unknown(value))

    def describe_index(self, value: object) -> str:
        """Return what a number means that is taken as the index of a class; "" for other values.

        Numbers that a file names itself, or that its format defines, are no such numbers.
        """
        is_number = isinstance(value, int | str) and _INTEGER.fullmatch(str(value).strip())
        if not is_number or self._are_numbers or self._are_defined:
            return ""
        meanings = (f'{index} is "{shortened(each)}"' for index, each in enumerate(self._labels))
        return f"numbers are read as indices of the classes: {listed(meanings)}"

    def indices(self, value: object) -> list[int]:
        """Return the indices of the classes in a list or a text, ascending, each once.

        Raises:
            BadRow: one of them stands for no class.
        """
        if value is None:
            raise BadRow("no label")
        if isinstance(value, str):
            value = split_labels(value, self._separator)
        values = value if isinstance(value, list | tuple) else [value]
        return sorted({self.index(each) for each in values})

    def flagged(self, values: Mapping[str, object], columns: Columns) -> list[int]:
        """Return the indices of the classes whose column holds 1, ascending.

        Raises:
            BadRow: a column is missing or holds something other than 0 and 1.
        """
        indices = []
        for column in columns:
            flag = flag_of(values.get(column))
            if flag is None:
                raise BadRow(f'column "{column}" holds {shown(values.get(column))}, not 0 or 1')
            if flag:
                indices.append(self.index(column))
        return sorted(indices)

    def _unknown(self, value: object) -> str:
        problem = f"label {shown(value)} is not one of {listed(self._labels)}"
        name = label_name(value)
        if isinstance(value, list | tuple):
            return f'{problem}; if a row can have several labels, set data.task = "multi-label"'
        if name is None:
            return problem
        if self._are_numbers and _INTEGER.fullmatch(name):
            return f"{problem} (a number is the name of a label here, not an index)"
        if not isinstance(value, float) and _INTEGER.fullmatch(name):
            first, last = self._first_class, self._first_class + len(self._labels) - 1
            return f"{problem} (numbers from {first} to {last} are read as their indices)"
        if self._separator is None and isinstance(value, str):
            for separator in _SEPARATORS:
                parts = split_labels(value, separator)
                if len(parts) > 1 and all(part in self._indices for part in parts):
                    return (
                        f'{problem}; if "{separator}" joins several labels, set '
                        f'data.label_separator = "{separator}"'
                    )
        similar = difflib.get_close_matches(name, self._labels, n=1, cutoff=0.75)
        return f'{problem}; did you mean "{similar[0]}"?' if similar else problem


def _spellings(labels: tuple[str, ...], first_class: int | None) -> dict[int | str, int]:
    """Map all spellings of a label to its index; exact names win over indices and other cases.

    Args:
        labels: class names, in the order of their indices.
        first_class: the number of the first class; None where numbers are names.
    """
    spellings: dict[int | str, int] = {}
    for index, label in enumerate(labels):
        if first_class is not None:
            number = index + first_class
            spellings |= {number: index, str(number): index}
        elif _INTEGER.fullmatch(name := label_name(label) or ""):
            spellings[int(name)] = index
            spellings[str(int(name))] = index
    for index, label in enumerate(labels):
        spellings.setdefault(label.casefold(), index)
    return spellings | {label: index for index, label in enumerate(labels)}


def _indices_by_class_name(
    class_names: tuple[str, ...], labels: tuple[str, ...], name: str
) -> dict[int | str, int]:
    """Map the integers of a column with named classes to the indices of the same names.

    Raises:
        DataError: a class has another index among the labels, while another is not among them.
    """
    label_indices = {label.casefold(): index for index, label in enumerate(labels)}
    label_indices |= {label: index for index, label in enumerate(labels)}
    mapped = [
        label_indices.get(class_name, label_indices.get(class_name.casefold()))
        for class_name in class_names
    ]
    if all(index is None for index in mapped):
        return {}
    if all(index is None or index == position for position, index in enumerate(mapped)):
        return {position: index for position, index in enumerate(mapped) if index is not None}
    if any(index is None for index in mapped):
        raise DataError(
            f"{name}: the file's classes are {listed(class_names)}, in another order than the "
            f"labels {listed(labels)}; list all of them under the same names in data.labels"
        )
    return {position: index for position, index in enumerate(mapped) if index is not None}
