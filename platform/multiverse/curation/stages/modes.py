"""The ways to structure a row."""

from multiverse.curation.stages import anchored, rewrite

MODES = {"anchored": anchored, "rewrite": rewrite}
"""Each has ``curate``, its ``STAGES`` in order, and the ``VERSION`` of its prompts."""
