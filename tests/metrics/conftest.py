"""Seven translations, one of them empty, with two references each, for the tests of corpus scores."""

from types import SimpleNamespace

import pytest

PREDICTIONS = [
    "The committee agreed on the new budget on Monday.",
    "He said that the weather will be fine tomorrow.",
    "",
    "Twelve people were injured in the accident.",
    "The museum opens at ten o'clock in the morning, said the guide.",
    "The cat the cat the cat",
    "Prices rose by 3.5 percent in March.",
]
FIRST = [
    "The committee agreed on Monday on a new budget.",
    "He said the weather would be fine tomorrow.",
    "Nobody answered the question.",
    "Twelve people were hurt in the accident.",
    "The museum opens at 10 o'clock in the morning, the guide said.",
    "The cat sat on the mat.",
    "In March, prices rose by 3.5 percent.",
]
SECOND = [
    "On Monday, the committee approved the new budget.",
    "He said that the weather would be nice tomorrow.",
    "No one replied to the question.",
    "The accident left twelve people injured.",
    "The guide said that the museum opens at ten in the morning.",
    "There is a cat on the mat.",
    "Prices went up by 3.5 per cent in March.",
]


@pytest.fixture
def texts():
    """The predictions, the first and the second reference of each, and both of them row by row."""
    both = list(zip(FIRST, SECOND, strict=True))
    return SimpleNamespace(predictions=PREDICTIONS, first=FIRST, second=SECOND, both=both)
