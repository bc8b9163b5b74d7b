"""What carries a plan out, in the process that a run is: its folder, its tasks, their faults, its end."""
