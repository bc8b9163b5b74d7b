"""Many runs as one DAG, from a manifest."""
