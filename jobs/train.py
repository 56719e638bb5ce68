"""Train a model to go parallel, on the Ray cluster that this job runs on.

    ray job submit --working-dir . --runtime-env-json '{"env_vars": {"PYTHONPATH": "platform"}}' \
        -- python jobs/train.py --config jobs/configs/smollm2-135m.yaml
"""

from multiverse.commands.train import job

if __name__ == "__main__":
    job()
