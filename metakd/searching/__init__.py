"""Search over settings: its space, Optuna's answers as jobs of a multirun, what came of it."""
