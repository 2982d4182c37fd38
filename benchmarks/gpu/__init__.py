"""What decides how seeds train on a GPU, measured within minutes; `__main__` is the command."""

import os

# JAX takes three quarters of a GPU's memory when it starts, and PyTorch's rows need some of it.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
