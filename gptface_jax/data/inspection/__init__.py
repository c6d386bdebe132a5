"""What is in a set: counted, checked against its manifest, shown, split anew."""
