"""What a person can do, once for the command line, the studio, the bench and Python."""
