"""rkt lives: a small pod executor for the App Container specification, on the mechanisms of the kernel room."""
