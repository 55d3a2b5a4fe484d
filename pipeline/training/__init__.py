"""The training loop, optimisers and checkpoints; knows no particular net."""
