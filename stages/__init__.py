"""The stages of dvc.yaml, one script each: load params, call celebflow, save."""

import gc

# What a stage imports is there to stay, in hundreds of thousands of objects; looking through them again and again for
# garbage would be a quarter of its start. run_to_exit turns the collector on when they are there.
gc.disable()
