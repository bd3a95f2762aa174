"""Compare events with hardware, and take circuits to other people's simulators."""
