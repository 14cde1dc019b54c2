"""What the numbers in the README come from: `make bench [DATA=folder]`."""
