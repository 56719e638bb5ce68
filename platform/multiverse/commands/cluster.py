"""The Ray cluster of a job, or one of this process's own."""

import os
from typing import Any


def connect(cpus: float) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names, as in a job; without one, start one here with so many CPUs free."""
    import ray

    from multiverse.application import ROOT

    if ray.is_initialized():
        return
    options: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):
        options["num_cpus"] = max(2, int(cpus) + 1)
        options["include_dashboard"] = False
        options["runtime_env"] = {"env_vars": {"PYTHONPATH": str(ROOT / "platform")}}
    ray.init(**options)
