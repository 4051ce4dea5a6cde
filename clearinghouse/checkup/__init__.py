"""What `clearinghouse doctor` looks at: each part from outside, without starting or changing anything.

The checks know each other's settings and nothing else, so they run side by side, each within a time limit.
"""
