"""What make_goldens.py is made of: one module per family of golden files."""
