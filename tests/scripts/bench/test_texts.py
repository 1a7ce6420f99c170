"""Rows of the benchmark: their lengths."""

from math import log
from statistics import fmean, stdev

from scripts.bench.texts import MEDIAN, SPREAD, VARIED, varied


def test_lengths_are_those_of_the_distribution():
    lengths = [len(row["document"]) for row in varied(48)]
    assert VARIED[0] <= min(lengths) < max(lengths) <= VARIED[1]
    logs = [log(length) for length in lengths]
    assert abs(fmean(logs) - log(MEDIAN)) < 0.02
    assert abs(stdev(logs) - SPREAD) < 0.05
    assert lengths != sorted(lengths)
    assert len(set(lengths)) > 40


def test_no_document_twice():
    documents = [row["document"] for row in varied(48)]
    assert len(set(documents)) == 48
