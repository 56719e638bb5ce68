"""Metrics of training: `multiverse.training.observers.Metrics` tells them on the first worker, the job its end."""

from multiverse.telemetry.metric import Metric

# part: all, or a part of the answer: tag, goal, path, conclusion, text.
LOSS = Metric("multiverse_training_loss", "gauge", "Mean loss of the last step, in nats.", "nats", ("part",))
STEP = Metric("multiverse_training_step", "gauge", "Steps done so far.", "steps")
STEPS = Metric("multiverse_training_steps", "gauge", "Steps of the whole run.", "steps")
# outcome: finished, stopped (its time was over; the same command goes on) or failed.
RUNS = Metric("multiverse_training_runs_total", "counter", "Runs that ended, by outcome.", "runs", ("outcome",))
STEP_SECONDS = Metric(
    "multiverse_training_step_seconds",
    "histogram",
    "Wall time of a step.",
    "seconds",
    buckets=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0),
)
TOKENS = Metric("multiverse_training_tokens_total", "counter", "Tokens trained on, of all workers.", "tokens")
LEARNING_RATE = Metric("multiverse_training_learning_rate", "gauge", "Learning rate of the last step.", "rate")
GRADIENT_NORM = Metric(
    "multiverse_training_gradient_norm", "gauge", "Norm of the last step's gradient before clipping.", "norm"
)
HELD_OUT_LOSS = Metric("multiverse_held_out_loss", "gauge", "Loss on held-out rows, in nats.", "nats", ("part",))
HELD_OUT_VALID = Metric(
    "multiverse_held_out_valid", "gauge", "Share of generated held-out answers with valid structure.", "share"
)
HELD_OUT_PARALLELISM = Metric(
    "multiverse_held_out_parallelism", "gauge", "Mean parallelism of generated held-out answers.", "ratio"
)
# outcome: saved or failed.
CHECKPOINTS = Metric(
    "multiverse_checkpoints_total", "counter", "Checkpoints that were tried, by outcome.", "checkpoints", ("outcome",)
)
CHECKPOINT_SECONDS = Metric(
    "multiverse_checkpoint_seconds",
    "histogram",
    "From the beginning of a save until the checkpoint is valid; training goes on meanwhile.",
    "seconds",
    buckets=(0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
CHECKPOINT_BYTES = Metric("multiverse_checkpoint_bytes", "gauge", "Size of the last valid checkpoint.", "bytes")
