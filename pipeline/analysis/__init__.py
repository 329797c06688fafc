"""How good labels are: truth, names, measures."""
