"""What all tests share: one thread, so that two processes have a core each; the same examples on each run."""

import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("slmlab", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("slmlab")
