"""What single pages of the book compute, tabulate and draw; what several need lies one room up."""
