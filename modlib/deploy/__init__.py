"""Recomposed networks made small and fast, and shipped to where this package is not installed."""
