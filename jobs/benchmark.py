"""Measure how fast a model goes parallel, on a node of the Ray cluster that this job runs on.

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python jobs/benchmark.py --config jobs/configs/benchmark.yaml
"""

from multiverse.evaluation.speed.command import job

if __name__ == "__main__":
    job()
