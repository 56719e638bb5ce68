"""Which tags may not be sampled in a segment: those that cannot be legal anywhere in it."""

from collections.abc import Sequence

from multiverse.structure.tags import TAGS

THINK = frozenset({"<Think>", "</Think>"})
TEN = frozenset(TAGS) - THINK
_OF_GOAL = frozenset({"<Parallel>", "<Goal>", "</Goal>", "<Outline>", "</Outline>"})
_OF_CONCLUSION = frozenset({"</Conclusion>", "</Parallel>"})


def masked_tags(*, open_tags: Sequence[str], branch: bool, may_fork: bool, trained: bool) -> frozenset[str]:
    """The masked tags of a segment.

    open_tags: tags that are open in the segment's own region when it starts.
    branch: ``</Path>`` ends the region.
    may_fork: the region is above the depth limit and nothing in it was malformed.
    """
    allowed = set(_OF_GOAL) if may_fork else set()
    if "<Parallel>" in open_tags:
        allowed |= _OF_CONCLUSION
    if branch:
        allowed.add("</Path>")
    elif trained:
        allowed |= THINK
    return frozenset(TAGS) - allowed
