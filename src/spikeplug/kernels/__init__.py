"""Fast forms of operators, each equal to the closed form bit for bit."""
