"""What a run can be told, read and checked whole before anything starts."""
