"""App Container images and pods, and the command `rkt` that runs them."""
