"""Curate chains to structured training rows, on the Ray cluster that this job runs on.

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python jobs/curate.py --config jobs/configs/multiverse-1k.yaml
"""

from multiverse.commands.curate import job

if __name__ == "__main__":
    job()
