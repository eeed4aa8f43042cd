"""One loop, its recipes, sizes, checkpoints and cache."""
