"""The explorer: a page on the loopback address about what a run's classifier confuses. Torch is loaded when needed."""
