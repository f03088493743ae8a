"""The networks that policies of our own are made of."""
