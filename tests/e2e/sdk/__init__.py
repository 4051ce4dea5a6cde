"""The official Python client, in an environment of its own, and the scripts that drive it there."""
