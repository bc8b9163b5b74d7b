"""What sites with many nodes are made of: worker pools, batch systems, queues, who does what."""
