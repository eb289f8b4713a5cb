"""Search for a better recipe: the search space, the study of all trials, its workers and its summary."""
