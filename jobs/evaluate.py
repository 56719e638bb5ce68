"""Evaluate a model on suites, on the Ray cluster that this job runs on.

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python jobs/evaluate.py --config jobs/configs/evaluate/smollm2-135m.yaml
"""

from multiverse.commands.evaluate import job

if __name__ == "__main__":
    job()
