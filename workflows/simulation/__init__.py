"""What a run would take on so many nodes, before anyone pays for them: its real plan, given or measured stage times, no work done."""
