"""The frozen VGG19: its weights, its device, and the settings of PyTorch that everything after it needs."""

import os

# Classifiers take hundreds of megabytes, and huge pages make training a third faster. PyTorch reads this setting
# once, when it first allocates memory.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# cuBLAS is deterministic only with this setting, which PyTorch's deterministic algorithms require.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
