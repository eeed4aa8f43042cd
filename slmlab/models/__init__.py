"""One network a file; they see tensors, never files, sound or training."""
