"""The commands besides `run`: each reads what there is, or asks, and leaves the work to others."""
