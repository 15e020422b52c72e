"""Results across commits, experiments and runs; the only importers of DVC."""
