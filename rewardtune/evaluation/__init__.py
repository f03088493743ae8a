"""How good a policy is: official metrics, of policies and of results files, and pictures."""
