"""Plans: from the scans and labels of a data set to a complete recipe, with a reason for each number."""
