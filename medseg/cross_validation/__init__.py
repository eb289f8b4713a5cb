"""Cross-validation: the folds of a data set, their trainings, out-of-fold predictions and the ensemble."""
