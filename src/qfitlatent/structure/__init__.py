"""A coordinate file becomes records: the altloc policy lives here."""
