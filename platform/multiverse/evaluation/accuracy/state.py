"""``run.json``: what a run's answers depend on, so that only the same run goes on in its folder."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multiverse.config import ConfigError
from multiverse.evaluation.accuracy.config import EvaluateConfig
from multiverse.evaluation.accuracy.questions import Questions
from multiverse.evaluation.accuracy.records import Record
from multiverse.evaluation.facts import run_facts

RUN = "run.json"


class State:
    """Of the run in the folder ``out``. Items, samples and budgets may be added to a run; nothing else may change."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self._path = path
        self._values = values

    @classmethod
    def open(
        cls,
        out: Path,
        config: EvaluateConfig,
        questions: Sequence[Questions],
        identities: Mapping[str, Mapping[str, Any]],
    ) -> "State":
        """identities: of the sides' models. Raises ConfigError, naming what differs, where ``out`` has another run."""
        path = out / RUN
        values = _read(path) if path.exists() else {"sides": {}, "suites": {}, "budgets": {}}
        wanted = {
            "sides": {side: target.essence() | dict(identities[side]) for side, target in config.sides.items()},
            "suites": {suite.suite: _essence(suite) for suite in questions},
            "sampling": {
                "seed": config.seed,
                "temperature": config.sampling_temperature,
                "top_p": config.top_p if config.sampling_temperature else None,
                "answer_tokens": config.answer_tokens,
            },
        }
        if path.exists() and (differs := _difference(values, wanted)):
            raise ConfigError(f"{out} holds another run: {differs}; choose another --out")
        code = run_facts()["code"]
        commit = f"{code['commit']}{' with changes' if code['changed'] else ''}"
        values["commits"] = list(dict.fromkeys([*values.get("commits", []), commit]))
        values["sampling"] = wanted["sampling"]
        values["sides"] |= wanted["sides"]
        values["suites"] |= wanted["suites"]
        state = cls(path, values)
        state._save()
        return state

    def budgets(self, suite: str, configured: Sequence[int | str], records: Iterable[Record]) -> dict[int, str]:
        """The configured budgets in positions, rising, and the quantiles that they are, "" for none.

        Quantiles are of ``records``, once: a run that goes on has them. Raises ConfigError where nothing is known of
        how long answers are.
        """
        known: dict[str, int] = self._values["budgets"].setdefault(suite, {})
        found: dict[int, str] = {}
        for budget in configured:
            if isinstance(budget, int):
                found.setdefault(budget, "")
                continue
            if budget not in known:
                known[budget] = _quantile(suite, budget, records)
                self._save()
            found[known[budget]] = ", ".join(filter(None, (found.get(known[budget]), budget)))
        return dict(sorted(found.items()))

    @property
    def commits(self) -> tuple[str, ...]:
        """Of the code that worked on this run, in order."""
        return tuple(self._values["commits"])

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(f".{self._path.name}.partial")
        partial.write_text(json.dumps(self._values, indent=1) + "\n", encoding="utf-8")
        partial.replace(self._path)


def _essence(suite: Questions) -> dict[str, Any]:
    # Generated tasks are known by their questions, and more of them may be added.
    return {"sha256": suite.sha256 if suite.from_file else None, "max_tokens": suite.max_tokens}


def _read(path: Path) -> dict[str, Any]:
    """Raises ConfigError for a file that is no state of a run."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is no state of a run: {error}") from error
    for name in ("sides", "suites", "sampling", "budgets"):
        if not isinstance(values, dict) or not isinstance(values.get(name), dict):
            raise ConfigError(f"{path} is no state of a run: it has no {name}")
    return values


def _difference(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first value that is not the same; "" if there is none. Sides and suites of one of them may be added."""
    for section in ("sides", "suites"):
        for name in (name for name in wanted[section] if name in there[section]):
            if found := _unequal(there[section][name], wanted[section][name], f"{section}.{name}."):
                return found
    return _unequal(there["sampling"], wanted["sampling"], "sampling.")


def _unequal(there: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> str:
    for name in {**wanted, **there}:
        old, new, where = there.get(name), wanted.get(name), f"{path}{name}"
        if isinstance(old, dict) and isinstance(new, dict):
            if found := _unequal(old, new, f"{where}."):
                return found
        elif old != new:
            return f"{where} is {old!r} there and {new!r} here"
    return ""


def _quantile(suite: str, budget: str, records: Iterable[Record]) -> int:
    lengths = [record.critical_path for record in records if record.critical_path]
    if not lengths:
        raise ConfigError(f"budgets has {budget}: no answer to {suite} has a known length")
    return max(1, round(float(np.quantile(lengths, int(budget.rstrip("%")) / 100))))
