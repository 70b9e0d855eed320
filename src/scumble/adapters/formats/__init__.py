"""Reading and writing the file formats that other programs use for learnt weights."""
