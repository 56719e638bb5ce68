"""Every segment's own seed, so that a seeded request alone is reproducible however its branches interleave."""

import hashlib

Path = tuple[tuple[int, int], ...]
"""A place that does not depend on timing: (number of the block in its region, branch) per depth, from 1."""


def derived_seed(seed: int | None, path: Path, ordinal: int, purpose: str = "answer") -> int | None:
    """63-bit seed of segment ``ordinal`` (from 0) of the region at ``path``; None stays None."""
    if seed is None:
        return None
    name = f"{seed} {purpose} {'/'.join(f'{block}.{branch}' for block, branch in path)} {ordinal}"
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") >> 1
