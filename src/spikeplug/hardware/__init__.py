"""Compare events with hardware. Names are imported when they are first used."""

from spikeplug.lazy import names_of

__getattr__ = names_of(
    __name__,
    {"chips": ("Chip", "chip_names", "load_chip"), "fit": ("Fit", "fit_all"), "neurobench": (), "token": ()},
)
