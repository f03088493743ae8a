"""MLE and REINFORCE: what changes a policy's weights, and how that survives a crash."""
