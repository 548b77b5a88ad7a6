"""Ways to take a classifier apart, behind one interface."""
