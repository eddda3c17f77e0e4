"""What a run shows and leaves: progress, loggers, samples, checkpoints, folders."""
