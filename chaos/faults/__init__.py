"""What is done to clusters, one file per family. Each fault says exactly what it does, and shows that it bit."""
