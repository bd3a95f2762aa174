"""Take circuits outside of this package: to files, and to other people's simulators."""
