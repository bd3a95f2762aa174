"""Compare events with hardware, and write circuits for it."""
