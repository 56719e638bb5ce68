"""From records to figures: per cell medians and spread, over the grid the bounds that are to hold."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from multiverse.evaluation.speed.measure import Measured
from multiverse.evaluation.speed.records import Record

BRANCH_TOKENS = 512
"""From so many tokens of branches on, a join by KV has to beat a second prefill."""
OF_LIMIT_ALONE, OF_LIMIT, OVER_AR = 0.95, 0.9, 0.95
"""The first two are bounds of ``decoding``, too."""
DRIFT = 1.2
"""A cell whose steps in sequence differ by more between repeats was measured in different states of the machine."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Raises ValueError for no values."""
        found = sorted(values)
        if not found:
            raise ValueError("there is nothing to take a median of")
        return cls(statistics.median(found), found[0], found[-1])


@dataclass(frozen=True, slots=True)
class Row:
    """One cell. x: tokens / critical path of the answer. over_ar: how many times as fast as in sequence. of_limit:
    that, of the most it can be. decoding: what the steps alone take by the engine's curve / what the answers took.
    join_gain: second prefill / join. step_ms: of a batch in sequence. branch_step: a step
    of the branches / a step of as many plain requests; 0 where rows differ from step to step. others: the
    share of the cores that other processes took."""

    cell: str
    batch: int
    context: int
    branches: int
    branch_tokens: int
    x: float
    repeats: int
    over_ar: Spread
    limit: Spread
    of_limit: Spread
    decoding: Spread
    structured_s: Spread
    sequential_s: Spread
    step_ms: Spread
    fork_ms: Spread
    branch_step: Spread
    join_ms: Spread
    second_prefill_ms: Spread
    join_gain: Spread
    others: Spread

    @property
    def misses(self) -> list[str]:
        """The bounds that do not hold."""
        least = OF_LIMIT_ALONE if self.batch == 1 else OF_LIMIT
        found = []
        if self.of_limit.median < least:
            found.append(f"{self.of_limit.median:.3f} of the limit, {least} is the bound")
        if self.decoding.median < least:
            found.append(f"{self.decoding.median:.3f} of the time is decoding, {least} is the bound")
        if self.over_ar.median < OVER_AR:
            found.append(f"{self.over_ar.median:.3f} of the speed in sequence, {OVER_AR} is the bound")
        if self.branch_tokens >= BRANCH_TOKENS and self.join_gain.median <= 1:
            found.append(f"a second prefill takes {self.join_gain.median:.2f} of a join")
        return found

    @property
    def drifted(self) -> bool:
        return self.step_ms.high > DRIFT * self.step_ms.low

    def flat(self) -> dict[str, Any]:
        """One value per column, for tables: medians, and lowest and highest beside them."""
        values: dict[str, Any] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, Spread):
                values |= {name: value.median, f"{name}_low": value.low, f"{name}_high": value.high}
            else:
                values[name] = value
        return values


def rows(measured: Measured) -> list[Row]:
    """Cells that have a record with a second prefill, in the order of the plan."""
    by_cell: dict[str, list[Record]] = {}
    for record in measured.records:
        by_cell.setdefault(record.cell, []).append(record)
    found = (by_cell.get(cell, []) for cell in measured.plan.cells)
    return [_row(measured, some) for some in found if any(record.second_prefill_s is not None for record in some)]


def _row(measured: Measured, records: Sequence[Record]) -> Row:
    cell, size = measured.cells[records[0].cell], measured.sizes[records[0].cell]
    over_ar = [record.sequential_s / record.structured_s for record in records]
    again = [(record.second_prefill_s, record.join_s) for record in records if record.second_prefill_s is not None]
    return Row(
        cell=cell.id,
        batch=cell.batch,
        context=cell.context,
        branches=size.rows,
        branch_tokens=max(size.branches),
        x=statistics.median(record.x for record in records),
        repeats=len(records),
        over_ar=Spread.of(over_ar),
        limit=Spread.of(record.limit for record in records),
        of_limit=Spread.of(ratio / record.limit for ratio, record in zip(over_ar, records, strict=True)),
        decoding=Spread.of(record.decoding_s(cell.batch) / record.structured_s for record in records),
        structured_s=Spread.of(record.structured_s for record in records),
        sequential_s=Spread.of(record.sequential_s for record in records),
        step_ms=Spread.of(record.curve[cell.batch] * 1e3 for record in records),
        fork_ms=Spread.of(record.fork_s * 1e3 for record in records),
        branch_step=Spread.of(
            0.0 if cell.trace else record.branch_step_s / record.curve[cell.batch * size.rows] for record in records
        ),
        join_ms=Spread.of(record.join_s * 1e3 for record in records),
        second_prefill_ms=Spread.of(prefill * 1e3 for prefill, _ in again),
        join_gain=Spread.of(prefill / join for prefill, join in again),
        others=Spread.of(record.others for record in records),
    )


def figures(found: Sequence[Row]) -> dict[str, float]:
    """The run in a few numbers: the worst cells, and how many of all hold each bound. Empty for no rows."""
    if not found:
        return {}
    alone = [row for row in found if row.batch == 1]
    long = [row for row in found if row.branch_tokens >= BRANCH_TOKENS]
    values = {
        "cells": float(len(found)),
        "cells_within_all_bounds": float(sum(not row.misses for row in found)),
        "of_limit_lowest": min(row.of_limit.median for row in found),
        "of_limit_median": statistics.median(row.of_limit.median for row in found),
        "decoding_lowest": min(row.decoding.median for row in found),
        "over_ar_lowest": min(row.over_ar.median for row in found),
        "over_ar_highest": max(row.over_ar.median for row in found),
        "others_highest": max(row.others.high for row in found),
    }
    if alone:
        values["of_limit_lowest_batch_1"] = min(row.of_limit.median for row in alone)
        values["decoding_lowest_batch_1"] = min(row.decoding.median for row in alone)
    if long:
        values["join_gain_lowest"] = min(row.join_gain.median for row in long)
    return values
