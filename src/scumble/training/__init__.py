"""What all learning shares: the fit loop, what it draws its examples from, and the objective."""
