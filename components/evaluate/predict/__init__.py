"""Read what the other phases wrote, refuse leaked or mixed inputs, and predict: everything that needs the models."""
