"""Tables divided into sets, checked and shown."""
