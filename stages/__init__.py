"""The stages of dvc.yaml, one script each: load params, call celebflow, save."""
