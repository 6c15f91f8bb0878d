"""Training: spike functions, neurons, models described as data, checkpoints and a trainer (torch)."""
