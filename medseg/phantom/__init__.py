"""A synthetic chest CT with an exactly known segmentation, and a demo that uses it."""
