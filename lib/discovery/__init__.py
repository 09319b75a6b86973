"""The maths that finds directions: products of the Jacobian, subspaces, studies of many images."""
