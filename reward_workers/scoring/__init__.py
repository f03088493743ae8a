"""What decides a group's rewards, as pure functions, and the digest that names it."""
