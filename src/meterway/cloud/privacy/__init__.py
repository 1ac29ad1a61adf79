"""Privacy: export, erasure with proof, retention, consents, and answers about many households."""
