"""What each thing costs, beside the limit that C sets and beside the tools that do the same, in one run."""
