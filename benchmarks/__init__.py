"""What the engine costs, beside what others do with the same network: ``python -m benchmarks``."""
