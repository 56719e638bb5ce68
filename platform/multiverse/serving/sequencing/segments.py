"""A region's segments: how they are asked for, read, and what becomes of their KV."""

from multiverse.engine.segment import Delta, Sampling, Segment
from multiverse.serving.sequencing.masking import masked_tags
from multiverse.serving.sequencing.region import Region, Step


async def sample(region: Region, room: int, stop: str = "</Goal>") -> Step:
    """Sample up to ``room`` tokens that leave the region open; in a branch its closer may come behind them."""
    session, tag = region.session, region.session.codec.tag
    masked = masked_tags(
        open_tags=region.own_open,
        branch=region.closer is not None,
        may_fork=not (region.fallen or session.time_is_up()) and len(region.place) < session.depth_limit,
        trained=session.limits.trained,
    )
    stop_ids = () if stop in masked else (tag(stop),)
    segment = Segment(
        id=session.segment_id(),
        tokens=tuple(region.context),
        sampling=session.sampling(room if region.closer is None else room + 1, region.path, region.segments),
        stop_ids=stop_ids,
        closer=region.closer,
        masked=tuple(sorted(tag(name) for name in masked)),
        sources=region.sources,
        lease=session.leases.name() if stop_ids or (region.closer is not None and session.by_kv) else None,
        release=region.release,
        adopted=region.adopted,
        branch_start=region.branch_start,
        replica=region.replica,
        home=region.home,
        priority=session.request.arrival,
        cache_salt=session.request.cache_salt,
    )
    region.segments += 1
    stream = session.open(segment, region.place)
    delta, step = Delta(()), None
    got, leased = 0, False
    try:
        async with session.hurried(region.place):
            async for delta in stream:
                if not got:
                    await _admit(region, segment)
                got += len(delta.tokens)
                step = region.take(delta)
                if step is not None:
                    break
            else:
                raise RuntimeError(f"segment {segment.id} ended without a reason")
        leased = bool(delta.tokens) and delta.tokens[-1] in (*segment.stop_ids, segment.closer)
        if leased:
            # Closed here, it would be aborted and its KV never be leased.
            session.drain(stream)
    except TimeoutError:
        region.late += 1
        step = Step("late")
    finally:
        if not leased:
            await stream.aclose()
    if segment.lease is not None:
        _keep(region, segment.lease, segment, got, delta, leased)
    return step


async def prefill(region: Region) -> None:
    """Make the KV of all of the region's tokens so far, and hold it."""
    session = region.session
    lease = session.leases.name()
    segment = Segment(
        id=session.segment_id(),
        tokens=tuple(region.context),
        sampling=Sampling(max_tokens=1, temperature=0.0),
        sources=region.sources,
        lease=lease,
        release=region.release,
        adopted=region.adopted,
        prefill_only=True,
        branch_start=region.branch_start,
        replica=region.replica,
        home=region.home,
        priority=session.request.arrival,
        cache_salt=session.request.cache_salt,
    )
    stream = session.open(segment, region.place)
    try:
        async for _ in stream:
            await _admit(region, segment)
    finally:
        await stream.aclose()
    region.hold(lease, len(region.context))


async def _admit(region: Region, segment: Segment) -> None:
    """The segment runs: it has read its sources and given back what it should."""
    region.session.leases.settle(segment.release)
    region.sources, region.release, region.adopted = (), (), ()
    await region.let_go()


def _keep(region: Region, lease: str, segment: Segment, got: int, last: Delta, leased: bool) -> None:
    """Hold the segment's lease if it leaves one. One that was aborted leaves none, or so late that the book has it."""
    if leased:
        # A token of stop_ids has no KV when the segment ends, the closer has.
        made = len(segment.tokens) + got - (last.tokens[-1] != segment.closer)
        region.hold(lease, min(made, len(region.context)))
    elif last.finish is not None:
        region.session.leases.settle((lease,))
