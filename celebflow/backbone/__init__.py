"""VGG19, where its weights come from, and the settings of PyTorch that everything after it needs."""

import os

# Classifiers take hundreds of megabytes: huge pages make training a third faster. PyTorch reads this setting only
# once, when it first allocates memory.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# cuBLAS is deterministic only with this setting, and PyTorch refuses to use it without.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
