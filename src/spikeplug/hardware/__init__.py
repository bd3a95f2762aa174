"""Say what hardware makes of circuits and events: logic, files of other simulators, prices."""
