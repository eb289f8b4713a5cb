"""Training of a model from a recipe and a manifest."""
