"""An experiment-tracked pipeline that teaches a frozen VGG19 to name the people in photographs."""

import os

# Classifiers are hundreds of megabytes large: huge pages make their training a third faster. PyTorch looks at this
# only once, when it first asks for memory.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# Without it, cuBLAS is not deterministic, and PyTorch refuses to use it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
