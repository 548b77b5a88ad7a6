"""What module stemming is measured against: older methods and controls."""
