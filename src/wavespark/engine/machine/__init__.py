"""The machine under a run: devices, processes, precision, compilation, memory, injected faults."""
