"""Compare events with hardware."""
