"""Training (torch): spike functions, neurons, models described as data, checkpoints, a trainer."""
