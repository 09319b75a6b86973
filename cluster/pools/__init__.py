"""Workers, in this process or as actors of a Ray cluster, behind one protocol."""
