"""The row that comes of a chain."""

import pytest

from multiverse.curation.stages.outcome import curated

CHAIN = "Look. Add one. Similarly, add two. Done.\n"
STRUCTURED = (
    "Look. \nLet's think in parallel.\n<Parallel>\n<Goal>\n<Outline>\n1: Add the first.\n</Outline>\n"
    "<Outline>\n2: Add the second.\n</Outline>\n</Goal>\n<Path>\n1: Add one. \n</Path>\n<Path>\n"
    "2: Now add two. \n</Path>\n<Conclusion>\nBoth are added.\n</Conclusion>\n</Parallel>\nDone.\n"
)


def test_what_was_rewritten_is_shown_and_measured() -> None:
    row = curated(CHAIN, STRUCTURED, {"2-3": 0.25}, 0)
    assert row.chain == STRUCTURED
    assert row.sequential == "Look. Add one. Now add two. Done.\n"
    assert row.diff == (
        "--- chain\n+++ rewritten\n@@ -1 +1 @@\n"
        "-Look. Add one. Similarly, add two. Done.\n+Look. Add one. Now add two. Done."
    )
    assert row.distance == pytest.approx(10 / 41)
    assert (row.figures.structure.blocks, row.gaps, row.merged) == (1, {"2-3": 0.25}, 0)


def test_a_chain_that_stayed_has_no_diff() -> None:
    row = curated(CHAIN, CHAIN, {}, 1)
    assert (row.sequential, row.diff, row.distance, row.figures.structure.blocks) == (CHAIN, "", 0.0, 0)
