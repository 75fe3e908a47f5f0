"""Search over settings: the space, Optuna's trials as jobs of a multirun, the report."""
