"""Training: state, one step, optimisers, the loop and what it reports. One trainer for every recipe."""
