"""Training a stage I, the neural codec of UViM."""
