"""What biologists ask of the densities: mutations that fit, what differs between structures."""
