"""Training of a model from a recipe and a manifest.

``session`` has the public function and ``trainer`` its steps. ``training_data``, ``case_cache`` and
``dataloaders`` provide the data; ``lightning_module`` and ``losses`` define a training step;
``run_folder``, ``provenance`` and ``checkpointing`` write the files.
"""
