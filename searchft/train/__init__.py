"""Training one recipe: parameter groups, schedules, the `fit` generator, checkpoints. Knows nothing of studies."""
