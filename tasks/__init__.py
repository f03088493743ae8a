"""What "good" means: data sets, their order, and one folder per task."""
